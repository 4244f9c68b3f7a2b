"""Records in the OpenR1-Math-220k schema for the tests and benchmarks: clean ones, and one for each
defect.
"""

import random
from typing import Any

NAMES = [
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Iris",
    "Jonas",
    "Karla",
    "Leo",
]
THINGS = [
    "apples",
    "marbles",
    "stamps",
    "coins",
    "tickets",
    "cards",
    "shells",
    "books",
    "pencils",
    "ribbons",
]
PLACES = [
    "harbour",
    "market",
    "library",
    "station",
    "garden",
    "museum",
    "bakery",
    "workshop",
    "theatre",
    "orchard",
]


def trace(answer: str, thought: str, box: str | None = None) -> str:
    visible = f"The answer is {box if box is not None else chr(92) + 'boxed{' + answer + '}'}."
    return f"<think>\n{thought}\n</think>\n\n{visible}"


def thought(rng: random.Random, words: int) -> str:
    """Prose that compresses like a real trace, not like a loop."""
    vocabulary = [
        *NAMES,
        *THINGS,
        *PLACES,
        "so",
        "then",
        "hence",
        "wait",
        "let",
        "me",
        "check",
        "since",
        "we",
        "have",
    ]
    return " ".join(
        str(rng.randrange(10_000)) if rng.random() < 0.3 else rng.choice(vocabulary)
        for _ in range(words)
    )


def clean(i: int, words: int = 40) -> dict[str, Any]:
    """A good record, a function of ``i`` alone; no two have the same problem."""
    rng = random.Random(f"clean {i}")
    a, b, name, thing, place = (
        rng.randrange(10, 99),
        rng.randrange(10, 99),
        *map(rng.choice, (NAMES, THINGS, PLACES)),
    )
    answer = str(a * b + i)
    problem = (
        f"At the {place}, {name} packs {a} boxes of {b} {thing} each and then finds {i} more "
        f"{thing} on shelf {rng.randrange(100)}. How many {thing} are there at the {place} in all?"
    )
    return record(f"clean-{i}", problem, answer, [trace(answer, thought(rng, words))])


def record(
    uuid: str, problem: str, answer: Any, generations: list[str], **more: Any
) -> dict[str, Any]:
    count = len(generations)
    return {
        "problem": problem,
        "solution": "",
        "answer": answer,
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": ("olympiads", "cn_contest", "amc_aime")[len(uuid) % 3],
        "uuid": uuid,
        "is_reasoning_complete": [True] * count,
        "generations": generations,
        "correctness_math_verify": [True] * count,
        "correctness_llama": None,
        "finish_reasons": ["stop"] * count,
        "correctness_count": count,
        "messages": [],
    } | more
