"""Prompts that show seed problems as examples and request new problems; parses the replies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.records import Problem
from common.seeded_order import seeded_key
from data_prep.benchmarks.sets import text_fields
from data_prep.synth import check_problem

SEEDS = "seeds"
"""Name of the seeds' set, next to the benchmark sets."""

INSTRUCTION = """\
Below are {examples} math word problems for school children, each with its solution and its answer.

{shown}

Write {wanted} new problems of this kind, each unlike the examples and unlike each other in story, \
names, numbers and steps. Every problem must be complete, realistic and solvable by itself in two \
to eight steps of arithmetic.

In the solution write one step on each line as a plain sentence. Behind every calculation repeat \
it between << and >> as expression=result, with plain numbers and + - * / ( ) only, and then its \
result: 3 * 24 = <<3*24=72>>72. Results are exact, never rounded. A step uses numbers of the \
problem and results of earlier steps. The result of the last calculation is the answer: a number \
from 0 to 225000, without a unit.

Use exactly the form of the examples, with no other words and no markup:
<problem>...</problem>
<solution>...</solution>
<answer>...</answer>"""


@dataclass(frozen=True)
class Seed:
    """A problem shown as an example; the solution has its annotations."""

    id: str
    problem: str
    solution: str
    answer: str


@dataclass(frozen=True)
class Request:
    """One prompt; ``id`` is unique within its generation."""

    id: str
    prompt: str
    expected: float
    """Expected length of the reply in characters."""


@dataclass(frozen=True)
class Item:
    """One generated problem as parsed from its reply; a missing part is empty."""

    problem: str
    solution: str
    answer: str


def choose(path: Path, count: int, seed: int) -> list[Seed]:
    """Returns ``count`` problems from a JSONL file of {id, problem, solution, answer}, chosen by
    hash among those that pass the checks of generated problems.

    Raises UserError for a missing file or key, and when too few pass.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: warmstart prefetch RECIPE makes gsm8k_train.jsonl; or set "
            "data.synth.seeds=FILE to a JSONL file with one {id, problem, solution, answer} per "
            "line"
        )
    seeds: list[Seed] = []
    values = [value for _, value in text_fields(path, ("id", "problem", "solution", "answer"))]
    for value in sorted(values, key=lambda v: seeded_key(seed, v["id"])):
        solution = value["solution"].split("\n####")[0].strip()
        if check_problem.fault(value["problem"], solution, value["answer"]) is None:
            seeds.append(
                Seed(value["id"], value["problem"].strip(), solution, value["answer"].strip())
            )
            if len(seeds) == count:
                return seeds
    raise UserError(
        f"{path}: {len(seeds):,} problems can serve as examples, but data.synth.seed_rows is "
        f"{count:,}: solutions need GSM8K's <<expression=result>> annotations, and the last "
        "result must be the answer"
    )


def problems(seeds: Sequence[Seed]) -> list[Problem]:
    """Returns the seeds as problems that must not be in the dataset."""
    return [Problem(seed.id, seed.problem, seed.answer, SEEDS) for seed in seeds]


def requests(
    seeds: Sequence[Seed], wanted: int, each: int, examples: int, seed: int
) -> list[Request]:
    """Returns prompts that request ``wanted`` problems, ``each`` per prompt, and show ``examples``
    seeds. Pure.
    """
    found = []
    for i, start in enumerate(range(0, wanted, each)):
        shown = random.Random(seeded_key(seed, f"request {i}")).sample(list(seeds), examples)
        texts = [_shown(example) for example in shown]
        count = min(each, wanted - start)
        prompt = INSTRUCTION.format(examples=examples, shown="\n\n".join(texts), wanted=count)
        found.append(Request(f"{i:06d}", prompt, expected=count * sum(map(len, texts)) / examples))
    return found


def _shown(seed: Seed) -> str:
    return (
        f"<problem>{seed.problem}</problem>\n<solution>{seed.solution}</solution>\n"
        f"<answer>{seed.answer}</answer>"
    )


def items(reply: str) -> list[Item]:
    """Returns the problems of a reply, including incomplete ones; if it has none, one item without
    a problem. Linear in the length of the reply.
    """
    found = []
    for text in reply.split("<problem>")[1:]:
        problem, _, rest = text.partition("</problem>")
        solution = rest.partition("<solution>")[2].partition("</solution>")[0]
        answer = rest.partition("<answer>")[2]
        found.append(
            Item(problem.strip(), solution.strip(), answer.partition("</answer>")[0].strip())
        )
    return found or [Item("", reply.strip(), "")]
