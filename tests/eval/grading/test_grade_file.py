"""Grading a file of any texts with their gold answers."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from data_prep import rules
from eval.grading.grade import EXTRACTORS, grade_file, summary
from tests.eval.grading.texts import TRICKY


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
    with pytest.raises(
        UserError, match="--style box is unknown: choose one of boxed, answer_is, gsm8k_synth"
    ):
        grade_file(path, "box")


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
