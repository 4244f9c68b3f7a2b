"""The checks of single generated problems: on GSM8K's real training rows, and on planted bad
ones.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from data_prep.answers.answer_is import stated
from data_prep.rows import filters
from data_prep.rows.parse import from_columns
from data_prep.source.shards import Record
from data_prep.synth import check_arithmetic, check_problem

PROBLEM = (
    "Natalia sold clips to 48 of her friends in April, "
    "and half as many in May. How many clips did she sell?"
)
SOLUTION = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Together she sold 48+24 = <<48+24=72>>72 clips."
)


@pytest.fixture(scope="module")
def gsm8k(benchmarks: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (benchmarks / "gsm8k_train.jsonl").open()]


def verdict(row: dict[str, Any], **changes: str) -> str | None:
    values = {key: row[key] for key in ("problem", "solution", "answer")} | changes
    return check_problem.fault(
        values["problem"], values["solution"].split("\n####")[0], values["answer"]
    )


def test_real_rows_survive_and_every_drop_is_explained(gsm8k: list[dict[str, Any]]) -> None:
    counts = Counter(map(verdict, gsm8k))
    assert counts.pop(None) / len(gsm8k) >= 0.92
    assert counts == {
        "structure: no annotation": 95,
        "answer range: negative": 3,
        # 52 are out of range; one of them has no annotation.
        "answer range: over 225000": 48,
        "solution quality: numbers without words": 1,
        # "OpenAI runs a robotics competition".
        "AI detection: self-reference": 1,
        "math verification: wrong carry between steps": 12,
        "math verification: answer not reached": 375,
    }


def test_exact_recomputation_agrees_with_python(gsm8k: list[dict[str, Any]]) -> None:
    """All 23,716 annotations of GSM8K are right in exact arithmetic; here each against Python's own
    fractions.
    """
    checked = 0
    for row in gsm8k:
        for match in check_arithmetic.ANNOTATION.finditer(row["solution"]):
            expression, _, result = match[1].partition("=")
            # Python's own evaluation is the independent opinion; it gets nothing but arithmetic,
            # and no names.
            assert re.fullmatch(r"[-+*/(). ,\d]+", expression)
            fractions = check_arithmetic._NUMBER.sub(
                lambda m: f"Fraction('{m[0].replace(',', '')}')", expression
            )
            exact = eval(fractions, {"__builtins__": {}, "Fraction": Fraction})
            assert (
                check_arithmetic._computed(expression) == exact == check_arithmetic.number(result)
            )
            checked += 1
    assert checked == 23_716


@pytest.mark.parametrize(
    ("reason", "old", "new"),
    [
        ("wrong arithmetic", "<<48/2=24>>24", "<<48/2=25>>25"),
        ("wrong arithmetic", "<<48+24=72>>72", "<<48+24=72.0001>>72"),
        ("wrong carry between steps", "48+24 = <<48+24=72>>72", "48+26 = <<48+26=74>>74"),
        ("another result shown than computed", "<<48/2=24>>24", "<<48/2=24>>26"),
        (
            "answer not reached",
            "<<48+24=72>>72",
            "<<48+24=72>>72 clips, of which <<72-2=70>>70 were red",
        ),
        ("annotation that is not expression=result", "<<48/2=24>>", "<<48/2>>"),
        (
            "annotation that is not expression=result",
            "<<48/2=24>>",
            "<<__import__('os').getcwd()=24>>",
        ),
        ("annotation that is not expression=result", "<<48/2=24>>", "<<9^9=24>>"),
        ("annotation that is not expression=result", "<<48/2=24>>", "<<48/0=24>>"),
        (
            "annotation that is not expression=result",
            "<<48/2=24>>",
            f"<<{'(' * 90}48/2{')' * 90}=x>>",
        ),
    ],
)
def test_planted_faults_of_arithmetic(reason: str, old: str, new: str) -> None:
    assert check_problem.fault(PROBLEM, SOLUTION, "72") is None
    bad = SOLUTION.replace(old, new)
    assert bad != SOLUTION
    answer = "74" if "74" in new else "72"
    assert check_problem.fault(PROBLEM, bad, answer) == f"math verification: {reason}"


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("structure: a part is missing", {"solution": " "}),
        ("structure: a tag or mark of the format is left", {"problem": "<problem>" + PROBLEM}),
        (
            "structure: the problem asks nothing",
            {"problem": "Natalia sold clips to 48 of her friends in April."},
        ),
        ("structure: the answer is not a number", {"answer": "72 clips"}),
        ("structure: no annotation", {"solution": SOLUTION.replace("<<", "(").replace(">>", ")")}),
        ("answer range: negative", {"answer": "-1"}),
        ("answer range: over 225000", {"answer": "225,000.5"}),
        ("solution quality: problem too short or too long", {"problem": "How many is 48 and 24?"}),
        ("solution quality: solution too long", {"solution": SOLUTION + "\nAnd so on." * 200}),
        ("solution quality: numbers without words", {"solution": "<<48/2=24>>24\n<<48+24=72>>72"}),
        ("solution quality: lines repeated", {"solution": "So it is.\n" * 3 + SOLUTION}),
        (
            "AI detection: self-reference",
            {"solution": "As an AI language model, I add.\n" + SOLUTION},
        ),
        ("AI detection: boilerplate", {"problem": "Here is a new word problem: " + PROBLEM}),
        ("AI detection: boilerplate", {"solution": SOLUTION + "\nWait, let me recheck that."}),
        ("AI detection: markup", {"solution": "**Step 1**\n" + SOLUTION}),
        (None, {"answer": "$72.00"}),
        (None, {"problem": PROBLEM.replace("?", " in all, after a 10-minute wait, of course?")}),
    ],
)
def test_planted_faults_of_text(reason: str | None, changes: dict[str, str]) -> None:
    row = {"problem": PROBLEM, "solution": SOLUTION, "answer": "72"}
    assert verdict(row, **changes) == reason


def test_a_changed_number_in_a_real_row_is_found(gsm8k: list[dict[str, Any]]) -> None:
    """One result in the middle changed with what follows kept: wrong arithmetic. Changed with its
    copies in the text and the next expressions too, so that each step is right by itself: a wrong
    carry, where nothing explains it.
    """
    rng, wrong, carried = random.Random(0), 0, Counter[str | None]()
    good = [row for row in gsm8k if verdict(row) is None]
    for row in rng.sample(good, 1_000):
        solution = row["solution"].split("\n####")[0]
        notes = list(check_arithmetic.ANNOTATION.finditer(solution))
        note = rng.choice(notes)
        expression, _, result = note[1].partition("=")
        off = check_arithmetic.number(result) + rng.choice([1, 2, 10])
        assert off is not None
        changed = (
            f"{solution[: note.start()]}<<{expression}={float(off):.6f}>>{solution[note.end() :]}"
        )
        assert verdict(row, solution=changed) == "math verification: wrong arithmetic"
        wrong += 1
        # The last step takes another number than the step before it came to.
        last, before = notes[-1], notes[-2] if len(notes) > 1 else None
        operands = check_arithmetic._values(last[1].partition("=")[0])
        value = check_arithmetic.number(before[1].partition("=")[2]) if before else None
        if value is None or operands.count(value) != 1 or value.denominator != 1 or value < 13:
            continue
        expression = last[1].partition("=")[0].replace(str(value), str(value + 17))
        if check_arithmetic._values(expression) == operands:
            continue
        total = check_arithmetic._computed(expression)
        if total.denominator != 1 or total <= 0:
            continue
        head = solution[: max(solution.rfind("\n", 0, last.start()), 0)]
        if str(value) in head[before.end() + len(str(value)) + 3 :]:
            continue
        tail = f"\nSo it is {expression} = <<{expression}={total}>>{total}."
        carried[verdict(row, solution=head + tail, answer=str(total))] += 1
    assert wrong == 1_000
    assert carried.total() > 200
    # The others: what the step took by mistake is a number that the problem has, or the right one
    # occurs again.
    assert carried["math verification: wrong carry between steps"] >= 0.9 * carried.total(), carried


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nthe answer is 3\n</think>\n\nThe answer is 72.", "72"),
        ("<think>\nx\n</think>\n\nThe answer is 1,234.5.", "1,234.5"),
        ("<think>\nx\n</think>\n\nThe answer is: **$18**", "$18"),
        ("So she has 12 eggs, and 3 of 15 are left: 0.2", "0.2"),
        ("Answer: -7", "-7"),
        ("<think>\nnever closed 5", None),
        ("nothing", None),
    ],
)
def test_the_number_that_is_stated(text: str, answer: str | None) -> None:
    assert stated(text) == answer


def test_a_row_states_its_answer_in_its_style() -> None:
    values = {"problem": PROBLEM, "solution": f"{SOLUTION}\n#### 72", "answer": "72.0"}
    columns = {"problem": "problem", "solution": "solution", "answer": "answer"}
    row = from_columns(Record(values, "f, row 1"), columns, "gsm8k", "answer_is")
    assert (
        row.solution.endswith("72 clips.\n</think>\nThe answer is 72.") and "<<" not in row.solution
    )
    assert all(check.keep(row) for check in filters.standard(8_000, "answer_is"))
    other = replace(row, solution=row.solution.replace("answer is 72", "answer is 73"))
    failed = [check.name for check in filters.standard(8_000, "answer_is") if not check.keep(other)]
    assert failed == ["answer not stated after the think block"]
