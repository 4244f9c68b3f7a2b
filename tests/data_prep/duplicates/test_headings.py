"""One problem under two headings compares equal; what only looks like a heading stays."""

import json
import time
from pathlib import Path

import pytest

from data_prep.duplicates import minhash
from data_prep.duplicates.headings import without_heading

STATEMENT = "Let the sequence $b_n$ start with $b_1 = 4$; find the least $n$ with $b_n > 90$."
HEADINGS = """
    Example 4 |Example 11: |Example 2.3.1 |EXAMPLE 6. |Example5 |Eg. 8 |Problem 9. |Problem #2:
    |Problem IV. |Problem 3 – |### Problem 5\n\n|**Problem 2.** |## Task A-2.7.\n\n
    |Task 8 (15 points). |Task №6. |Question 17: |Question: |Problem: |Exercise 21. |Q3.
    |Second question (16 points)
    |5. |(8) |[6] |**12.** |6. (15 points) |4. [25 points] |IV. |II. (Total 18 points)
    |Four, (20 points) |10.2. |9.7 |5.4 * |B3. |G2.1 |[ Ivanov P.A. ] |[20 points] |(10 marks)
    |(2017 Baltic Way) |(IMO 1991, Problem 2) |Example 3 (2008, Spanish Olympiad) |【Example 7】
    |1. (This question is worth 14 points) |3. 3.
"""


@pytest.mark.parametrize("heading", [h.replace("\\n", "\n") for h in HEADINGS.strip().split("|")])
def test_a_heading_is_taken_off(heading: str) -> None:
    assert without_heading(f"{heading.strip(' ')} {STATEMENT}") == STATEMENT


@pytest.mark.parametrize(
    "ending", [" (12 points)", " (2014 Nordic)", " [9 marks].", " (2003, Iran) (5 pts)"]
)
def test_points_and_sources_at_the_end_are_taken_off(ending: str) -> None:
    assert without_heading(STATEMENT + ending) == STATEMENT


@pytest.mark.parametrize(
    "problem",
    [
        "14 boys and 3 girls queue.",
        "What day is May 1, 2012 (May 1, 2011 was a Sunday)?",
        "She has 10 points in total. (A win is worth 3 points.)",
        "Draw all chords (given 6 points on a circle).",
        "Count the lines (no 3 points are collinear).",
        "3: 4 = x: 8. Find x.",
        "12: 5 is the ratio of the sides.",
        "(3)(4)+(5)= what?",
        "Problem 3 was solved by 5 pupils. How many did not solve it?",
        "2.5 kilograms of flour are mixed.",
        "3.14 is near which number?",
        "Examples of primes are 2 and 3. Which is next?",
        "[x] denotes the floor of x.",
        "(3) + 4 is what?",
        "(x+3)(x-2) = 0. Solve.",
        "I am 5 years older than Ida.",
        "No three points lie on a line.",
        "No 4 numbers are equal.",
        "Two boys (and 3 girls) play.",
        "In 2019, a town had 30 shops.",
        "Find the remainder (mod 2019)",
        "Which is nearer to (2000, 1999)",
        "Example 7",
        "(10 points)",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_heading_stays(problem: str) -> None:
    assert without_heading(problem) == problem


def test_no_statement_of_a_benchmark_has_a_heading(benchmarks: Path) -> None:
    for file in benchmarks.glob("*.jsonl"):
        for line in file.open():
            problem = json.loads(line)["problem"]
            assert without_heading(problem) == problem.strip()


def test_the_fingerprint_ignores_headings() -> None:
    def text(problem: str) -> str:
        return minhash.fingerprint("a", problem, "7", "w", (1, 1, "a")).text

    assert text(f"Example 3 {STATEMENT}") == text(f"6. (10 points) {STATEMENT.upper()}")
    assert text(STATEMENT) != text(STATEMENT.replace("4", "5"))


@pytest.mark.parametrize("part", ["(", "[ ", "Example ", "# ", " ", "1.", "(x) ", "(2001 Abc) "])
def test_hostile_texts_take_linear_time(part: str) -> None:
    start = time.process_time()
    without_heading(part * 100_000)
    without_heading("x" + part * 100_000)
    assert time.process_time() - start < 1
