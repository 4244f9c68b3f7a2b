"""A generated source in the OpenR1 schema at realistic length, and benchmark files of the real
ones' sizes.

Traces have a lognormal length with a median of 13,000 characters. Of a hundred records, two repeat
an earlier problem in other words and one rewords a benchmark item.
"""

import functools
import json
import random
from math import inf
from pathlib import Path

from data_prep.benchmarks.known import BENCHMARKS, UP_TO_999
from tests.data_prep.openr1 import NAMES, PLACES, THINGS, record, thought, trace

SYLLABLES = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "ar", "en", "is")]
SETS = ("aime2024", "aime2025", "aime2026", "amc2023", "math500", "gsm8k_test")
"""The sets whose problems the 4B recipe keeps out."""
MEDIAN_LOG, SIGMA = 9.47, 0.6
"""Lognormal parameters of the length in characters: the exponential of 9.47 is 13,000."""


def write_source(path: Path, rows: int) -> None:
    """JSONL, two traces a record, the first of them wrong; a function of ``rows`` alone."""
    statements = [item["problem"] for name in SETS for item in items(name)]
    with path.open("w") as f:
        for i in range(rows):
            rng = random.Random(i)
            kind = rng.random()
            if kind < 0.02 and i:
                earlier = random.Random(rng.randrange(i))
                earlier.random()
                problem, answer = problem_of(earlier), answer_of(earlier)
                problem = f"Well, {problem}"
            elif kind < 0.03:
                problem, answer = f"Consider this: {rng.choice(statements)}", answer_of(rng)
            else:
                problem, answer = problem_of(rng), answer_of(rng)
            traces = [trace("wrong", long_thought(rng)), trace(answer, long_thought(rng))]
            flags = {"correctness_math_verify": [False, True]}
            f.write(json.dumps(record(f"row-{i}", problem, answer, traces, **flags)) + "\n")


def write_benchmarks(folder: Path) -> None:
    """A file for each of SETS, of as many generated problems as the real one has."""
    folder.mkdir()
    for name in SETS:
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(item) + "\n" for item in items(name))
        )


def items(name: str) -> list[dict[str, str]]:
    """The problems of one benchmark, with answers of its form."""
    rng = random.Random(name)
    most = 999 if BENCHMARKS[name].answers is UP_TO_999 else inf
    return [
        {"id": str(i), "problem": problem_of(rng), "answer": str(min(most, int(answer_of(rng))))}
        for i in range(BENCHMARKS[name].problems)
    ]


def problem_of(rng: random.Random) -> str:
    """A statement of 20 to 60 words: some rare, some in every problem, some numbers."""
    words = []
    for _ in range(rng.randrange(20, 60)):
        kind = rng.random()
        if kind < 0.15:
            words.append(str(rng.randrange(1_000)))
        elif kind < 0.5:
            words.append("".join(rng.choices(SYLLABLES, k=2)))
        else:
            words.append(
                rng.choice(
                    [*NAMES, *THINGS, *PLACES, "the", "of", "and", "is", "how", "many", "each"]
                )
            )
    return f"{' '.join(words)}. Find the value of $m + n$."


def answer_of(rng: random.Random) -> str:
    """Small numbers are the most frequent, as in the real source."""
    return str(int(rng.paretovariate(0.5)))


@functools.cache
def _prose() -> str:
    return thought(random.Random("prose"), 500_000)


def long_thought(rng: random.Random) -> str:
    """A piece of generated prose, cut anywhere."""
    length = round(rng.lognormvariate(MEDIAN_LOG, SIGMA))
    start = rng.randrange(len(_prose()) - length)
    return _prose()[start : start + length]
