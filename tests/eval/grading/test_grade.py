import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.errors import UserError
from common.records import UNJUDGED, Grade, Problem, Rollout
from data_prep import rules
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.answers.normalise import normalise
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.benchmarks.sets import load
from eval.generation import rollout_files
from eval.grading.grade import (
    EXTRACTORS,
    WINDOW,
    Disagreement,
    Pair,
    disagreements,
    grade,
    grade_file,
    grade_folder,
    summary,
    verify,
)
from tests.conftest import ROOT

HOSTILE = {
    "tower": r"\boxed{10^{10^{10}}}",
    "power": r"\boxed{9^{9^{9^{9}}}}",
    "factorial": r"\boxed{9999999!}",
    "plain power": "The answer is 7**9**9**9",
    "nested": r"\boxed{" + "{" * 1000 + "1" + "}" * 1000 + "}",
    "roots": r"\boxed{" + r"\sqrt{" * 700 + "7" + "}" * 701,
    "fractions": r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 301,
    "open": r"\boxed{1" + "{" * 2_000_000,
    "boxes": r"\boxed{" * 300_000,
    "open boxes": r"\boxed{{}" * 100_000,
    "dollars": "$" * 100_000,
    "answers": "answer " * 10_000,
    "equations": "$" + "x=" * 50_000 + "$",
    "digits": r"\boxed{" + "9" * 100_000 + "}",
    "zeros": r"\boxed{" + "0" * 999 + "7}",
    "words": r"\boxed{7" + " within" * 140 + "!}",
    "long": "1 + " * 12_500_000 + r"\boxed{7}",
    "control": "\x00\x1b[2J\r\x07\\boxed{7\0}",
    "surrogate": "\ud800 \\boxed{\ud800 7}",
    "reversed": "\u202e\\boxed{7}\u2028\ufeff",
}
RIGHT = {"zeros", "long", "reversed"}
"""The cases of HOSTILE that are right when the gold answer is 7."""
TRICKY = [
    (r"<think>\boxed{16}</think>I am not sure.", "16", False),
    (r"<think>\boxed{16}</think>It is \boxed{17}.", "16", False),
    (r"<think>\boxed{17}", "17", False),
    (r"Not \boxed{15}, but \boxed{16}.", "16", True),
    (r"Not \boxed{16}, but \boxed{15}.", "16", False),
    (r"\boxed{\text{The answer is } 16}", "16", True),
    (r"\boxed{16 \text{ apples}}", "16", True),
    (r"It is \boxed{16} after 3 steps.", "16", True),
    (
        r"Reason step by step, and put your final answer within \boxed{}. It is \boxed{16}.",
        "16",
        True,
    ),
    (
        r"It is \boxed{16}. Reason step by step, and put your final answer within \boxed{}.",
        "16",
        True,
    ),
    (r"\boxed{016}", "16", True),
    (r"\boxed{16}", "016", True),
    (r"\boxed{160}", "16", False),
    (r"\boxed{1{,}625}", "1625", True),
    (r"\boxed{1625}", "1{,}625", True),
    (r"\boxed{-1}", "-1", True),
    (r"\boxed{1}", "-1", False),
    (r"\boxed{-1}", "1", False),
]
"""(text, gold, whether it is right) where graders go wrong."""


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


@pytest.mark.timeout(300)
def test_hostile_texts_leave_the_pool_alive(tmp_path: Path) -> None:
    """Each is a rollout between ordinary ones, which are graded as if they stood alone."""
    lines = []
    for i, (name, text) in enumerate(HOSTILE.items()):
        lines.append({"id": name, "gold": "7", "text": f"<think></think>{text}"})
        lines.append({"id": f"right {i}", "gold": str(i), "text": f"<think></think>\\boxed{{{i}}}"})
        lines.append(
            {"id": f"wrong {i}", "gold": str(i), "text": f"<think></think>\\boxed{{{i + 1}}}"}
        )
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    grades = {
        line["id"]: line for line in map(json.loads, grade_file(path).read_text().splitlines())
    }
    assert list(grades) == [line["id"] for line in lines]
    for name, got in grades.items():
        if name in HOSTILE:
            assert got["exact"] == (name in RIGHT), name
            assert got["verified"] in (True, False, UNJUDGED), name
        else:
            assert got["exact"] == got["verified"] == name.startswith("right"), name
    assert {grades[name]["verified"] for name in ("tower", "power")} == {UNJUDGED}


def test_hostile_golds() -> None:
    golds = ("10^{10^{10}}", "}{", "", "7" * 1_000_000)
    opinions = verify((r"\boxed{7}", gold) for gold in golds)
    assert list(opinions.values()) == [UNJUDGED, False, False, UNJUDGED]


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


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"id": "a", "gold": "7", "text": r"<think>x</think>\boxed{7}"},
        {"id": "b", "gold": "7", "text": "<think>x", "finish_reason": "length"},
        {"id": "c", "gold": "7", "text": "seven"},
        {"id": "d", "gold": "7", "text": "<think>x</think>7"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = grade_file(path)
    assert out == tmp_path / "mine.grades.jsonl"
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {
            "id": "a",
            "state": "boxed",
            "extracted": "7",
            "exact": True,
            "verified": True,
            "grader": rules.ANSWERS,
        },
        {
            "id": "b",
            "state": "truncated",
            "extracted": None,
            "exact": False,
            "verified": False,
            "grader": rules.ANSWERS,
        },
        {
            "id": "c",
            "state": "no_box",
            "extracted": None,
            "exact": False,
            "verified": False,
            "grader": rules.ANSWERS,
        },
        {
            "id": "d",
            "state": "no_box",
            "extracted": None,
            "exact": False,
            "verified": True,
            "grader": rules.ANSWERS,
        },
    ]
    listed = (tmp_path / "mine.disagreements.jsonl").read_text().splitlines()
    assert [(line["id"], line["gold"]) for line in map(json.loads, listed)] == [("d", "7")]
    assert (
        summary(out)
        == f"1 of 4 right; math-verify disagrees on 1 ({tmp_path / 'mine.disagreements.jsonl'})"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        pytest.param("[" * 100_000, "line 2: not valid JSON", id="deep"),
        pytest.param('{"text": ' + "9" * 5_000 + "}", "line 2: not valid JSON", id="a long number"),
        ('{"id": "b", "gold": "7"}', "line 2: no key 'text'"),
        ('{"id": "b", "gold": true, "text": ""}', "line 2: gold must be text or a number"),
        ('{"id": "b", "gold": ["7"], "text": ""}', "line 2: gold must be text or a number"),
        ('{"id": "b", "gold": NaN, "text": ""}', "line 2: gold must be text or a number"),
        ('{"id": "b", "gold": "7", "text": 7}', "line 2: text must be text, not 7"),
        ('{"id": "b", "gold": "", "text": ""}', "line 2: the gold answer '' is blank"),
        ('{"id": "b", "gold": " $ $ ", "text": ""}', "line 2: the gold answer"),
        (r'{"id": "b", "gold": "\\text{ }", "text": ""}', "line 2: the gold answer"),
        ('{"id": "b", "gold": "7", "text": "", "finish_reason": "eos"}', "line 2: finish_reason"),
    ],
)
def test_broken_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "gold": "7", "text": "7"}\n' + line + "\n")
    with pytest.raises(UserError, match=f"mine.jsonl, {message}"):
        grade_file(path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="does not exist"):
        grade_file(tmp_path / "none.jsonl")


def test_a_gold_answer_may_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    golds = {"7": "7", "12.0": "12", "-0.50": "-0.5", "0.00002": ".00002", "1e2": "100"}
    path.write_text(
        "".join(
            f'{{"id": {i}, "gold": {gold}, "text": "\\\\boxed{{{answer}}}"}}\n'
            for i, (gold, answer) in enumerate(golds.items())
        )
    )
    graded = [json.loads(line) for line in grade_file(path).read_text().splitlines()]
    assert [(line["id"], line["exact"], line["verified"]) for line in graded] == [
        (str(i), True, True) for i in range(len(golds))
    ]


def test_a_file_is_graded_in_its_style(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "gold": "72", "text": "So 71. The answer is $72."}\n')
    found = {}
    for style in (None, *EXTRACTORS):
        (line,) = map(json.loads, grade_file(path, style).read_text().splitlines())
        found[style] = line["state"], line["exact"]
    assert found == {
        None: ("no_box", False),
        "boxed": ("no_box", False),
        "answer_is": ("stated", True),
        "gsm8k_synth": ("last_number", True),
    }
    with pytest.raises(UserError, match="--style box is none of boxed, answer_is, gsm8k_synth"):
        grade_file(path, "box")


def test_the_graders_agree_on_percents() -> None:
    lines = Path(__file__).parents[2] / "data_prep/answers/spellings.jsonl"
    cases = [case for case in map(json.loads, lines.open()) if "verified" in case]
    problems = [Problem(str(i), "?", case["gold"], "s") for i, case in enumerate(cases)]
    rollouts = [rollout(case["text"], 0, str(i)) for i, case in enumerate(cases)]
    grades = grade(rollouts, problems)
    assert [(g.exact, g.verified) for g in grades] == [(c["exact"], c["verified"]) for c in cases]
    assert {case["exact"] for case in cases} == {True, False}


def test_an_empty_file_grades_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n")
    with pytest.raises(UserError, match=r"mine\.jsonl is empty"):
        grade_file(path)


def test_the_opinion_is_on_the_box_that_counts(tmp_path: Path) -> None:
    """math-verify alone takes several boxes as one list."""
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": text, "gold": gold, "text": text}) + "\n" for text, gold, _ in TRICKY
        )
    )
    graded = [json.loads(line) for line in grade_file(path).read_text().splitlines()]
    assert [line["exact"] for line in graded] == [right for *_, right in TRICKY]
    assert [line["extracted"] for line in graded if line["verified"] != line["exact"]] == [
        r"\text{The answer is } 16"
    ]


@pytest.mark.parametrize(
    "box", [f"{'x' * WINDOW} = 7", f"7 {'+ 0' * WINDOW}", f"{'0' * 2 * WINDOW}7"]
)
def test_a_part_of_a_box_is_no_answer(box: str) -> None:
    (got,) = grade([rollout(f"\\boxed{{{box}}}", 0)], [Problem("p", "?", "7", "s")])
    assert (got.state, got.exact, got.verified) == ("boxed", False, False)


def test_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    towers = (
        f"\\boxed{{10^{{10^{{1{i:03}}}}}}}" for i in range(400)
    )  # ten minutes of processor time
    path.write_text(
        "".join(json.dumps({"id": "a", "gold": "7", "text": tower}) + "\n" for tower in towers)
    )
    command = [sys.executable, "-m", "warmstart", "grade", str(path)]
    with subprocess.Popen(command, cwd=ROOT) as grading:
        workers: set[int] = set()
        while len(workers) < 6:  # some were replaced, so judgements are made
            workers |= {p.pid for p in psutil.Process(grading.pid).children(recursive=True)}
            assert grading.poll() is None
            time.sleep(0.1)
        grading.send_signal(signal.SIGINT)
        assert grading.wait(100) == 75
    assert list(tmp_path.iterdir()) == [path]


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
