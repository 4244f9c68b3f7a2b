"""Grading rollouts: the exact match, and math-verify's opinion beside it."""

import json
import re
from pathlib import Path

import pytest

from common.errors import UserError
from common.records import UNJUDGED, Grade, Problem, Rollout
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.answers.normalise import normalise
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.benchmarks.sets import load
from eval.generation import rollout_files
from eval.grading.grade import (
    WINDOW,
    Disagreement,
    Pair,
    disagreements,
    grade,
    grade_folder,
    summary,
    verify,
)
from tests.eval.grading.texts import TRICKY


def rollout(text: str, k: int, problem: str = "p", finish: str = "stop") -> Rollout:
    return Rollout(("s", problem, k), 0, text, 1, finish, "engine-0", 0.0)


def test_headline_and_opinion() -> None:
    problems = [Problem("p", "?", r"\frac{1}{2}", "s"), Problem("q", "?", "025", "s")]
    texts = [
        ("p", r"<think>a</think>\boxed{\dfrac{1}{2}}", "boxed", True, True),
        ("p", r"<think>a</think>\boxed{0.5}", "boxed", False, True),
        ("p", r"<think>a</think>\boxed{2}", "boxed", False, False),
        ("p", r"<think>\boxed{\frac12}</think>nothing", "box_in_think_only", False, False),
        ("q", r"<think>a</think>The answer is $\boxed{25}$.", "boxed", True, True),
        ("q", r"<think>a</think>", "no_box", False, False),
        ("q", r"It is \boxed{25}", "boxed", True, True),
    ]
    rollouts = [rollout(text, k, problem) for k, (problem, text, *_) in enumerate(texts)]
    grades = grade(rollouts, problems)
    assert [g.key for g in grades] == [r.key for r in rollouts]
    assert [(g.state, g.exact, g.verified) for g in grades] == [t[2:] for t in texts]


def test_unknown_problem() -> None:
    with pytest.raises(UserError, match="none of the evaluated problems"):
        grade([rollout("1", 0)], [])


def test_folder(tmp_path: Path) -> None:
    texts = ["\ud800\0 \\boxed{0.5}", r"\boxed{1/2}", r"\boxed{2}", "It is 1/2."]
    with (tmp_path / rollout_files.ROLLOUTS).open("w") as f:
        for k, text in enumerate(texts):
            rollout_files.append(f, rollout(text, k))
    problems = [Problem("p", "?", "0.5", "s")]
    path = grade_folder(tmp_path, problems)
    grades = rollout_files.read_grades(path)
    assert [(g.exact, g.verified) for g in grades.values()] == [
        (True, True),
        (False, True),
        (False, False),
        (False, True),
    ]
    listed = [
        Disagreement(("s", "p", 1), "1/2", "0.5", False, True),
        Disagreement(("s", "p", 3), None, "0.5", False, True),
    ]
    assert disagreements(grades.values(), problems) == listed
    lines = (tmp_path / "disagreements.jsonl").read_text().splitlines()
    assert [
        Disagreement(**json.loads(line) | {"key": d.key})
        for line, d in zip(lines, listed, strict=True)
    ] == listed
    assert (
        summary(path)
        == f"1 of 4 right; math-verify disagrees on 2 ({tmp_path / 'disagreements.jsonl'})"
    )


def test_an_unjudged_rollout_is_no_disagreement(tmp_path: Path) -> None:
    grades = [
        Grade(("s", "p", k), "boxed", "7", exact, UNJUDGED) for k, exact in enumerate((True, False))
    ]
    assert disagreements(grades, [Problem("p", "?", "7", "s")]) == []
    rollout_files.write_grades(tmp_path / rollout_files.GRADES, grades)
    assert (
        summary(tmp_path / rollout_files.GRADES)
        == "1 of 2 right; math-verify disagrees on 0 and gave no verdict on 2"
    )


def test_the_graders_agree_on_percents() -> None:
    lines = Path(__file__).parents[2] / "data_prep/answers/spellings.jsonl"
    cases = [case for case in map(json.loads, lines.open()) if "verified" in case]
    problems = [Problem(str(i), "?", case["gold"], "s") for i, case in enumerate(cases)]
    rollouts = [rollout(case["text"], 0, str(i)) for i, case in enumerate(cases)]
    grades = grade(rollouts, problems)
    assert [(g.exact, g.verified) for g in grades] == [(c["exact"], c["verified"]) for c in cases]
    assert {case["exact"] for case in cases} == {True, False}


@pytest.mark.parametrize(
    "box", [f"{'x' * WINDOW} = 7", f"7 {'+ 0' * WINDOW}", f"{'0' * 2 * WINDOW}7"]
)
def test_a_part_of_a_box_is_no_answer(box: str) -> None:
    (got,) = grade([rollout(f"\\boxed{{{box}}}", 0)], [Problem("p", "?", "7", "s")])
    assert (got.state, got.exact, got.verified) == ("boxed", False, False)


@pytest.mark.parametrize(("text", "gold", "right"), TRICKY)
def test_where_public_graders_go_wrong(text: str, gold: str, right: bool) -> None:
    state, extracted = grade_state(text, "stop")
    assert is_exact(extracted, gold) == right, (state, extracted)


def test_every_benchmark_answer_is_right_and_its_neighbour_wrong(benchmarks: Path) -> None:
    """Under both graders, in every set of known size."""
    wanted: dict[Pair, bool] = {}
    for name in BENCHMARKS:
        answers = [problem.answer for problem in load(benchmarks, [name], None)]
        for gold, other in zip(answers, answers[1:] + answers[:1], strict=True):
            if re.fullmatch(r"-?\d+", gold):
                other = str(int(gold) + 1)
            for answer in (gold, other):
                right = normalise(answer) == normalise(gold)
                wanted[f"Hence it is $\\boxed{{{answer}}}$.", gold] = right
                assert answer != gold or right
    assert verify(wanted) == wanted
    assert sum(wanted.values()) > 500 and len(wanted) - sum(wanted.values()) > 500


def test_math_verify_sees_the_last_box_and_no_thoughts() -> None:
    filler = "So we go on to step 3. " * 1000
    texts = {
        f"<think>{filler}</think>It is \\boxed{{7}}. {filler}": True,
        f"<think>{filler}</think>{filler} It is \\boxed{{7}}.": True,
        "<think>It is \\boxed{7}": False,
        "<think>It is \\boxed{7}</think>": False,
    }
    rollouts = [rollout(text, k) for k, text in enumerate(texts)]
    assert [g.verified for g in grade(rollouts, [Problem("p", "?", "7", "s")])] == list(
        texts.values()
    )


def test_both_opinions_agree_on_ordinary_rollouts() -> None:
    problems = [Problem(f"p{i}", "?", str(i), "s") for i in range(40)]
    rollouts = [
        rollout(f"<think>{i}</think>So it is $\\boxed{{{i + k % 3}}}$.", k, f"p{i}")
        for i in range(40)
        for k in range(16)
    ]
    grades = grade(rollouts, problems)
    assert [g.exact for g in grades] == [g.verified for g in grades]
    assert sum(g.exact for g in grades) == 40 * 6
