import json
import time
from pathlib import Path

import pytest

from data_prep.schema import Problem, Rollout
from eval import ledger
from eval.grading import grade, grade_file, grade_folder, verify

HOSTILE = {
    "tower": r"\boxed{10^{10^{10}}}",
    "factorial": r"\boxed{9999999!}",
    "braces": r"\boxed{" + "{" * 1000 + "1" + "}" * 1000 + "}",
    "open": r"\boxed{1" + "{" * 1_000_000,
    "power": r"\boxed{9^{9^{9^{9}}}}",
    "fractions": r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 301,
    "long": "1 + " * 1_250_000 + r"\boxed{7}",
    "nul": "\\boxed{\0}",
    "surrogate": "\\boxed{\ud800 1}",
}


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
    with pytest.raises(ValueError, match="of no problem"):
        grade([rollout("1", 0)], [])


def test_hostile_texts_leave_the_pool_alive() -> None:
    begin = time.monotonic()
    plain = {(rf"\boxed{{{i}}}", str(i)): True for i in range(20)}
    hostile = {(text[-4000:], "7") for text in HOSTILE.values()}
    opinions = verify([*hostile, *plain])
    assert {pair: opinions[pair] for pair in plain} == plain
    assert all(opinion in (True, False, "timeout") for opinion in opinions.values())
    assert "timeout" in {opinions[pair] for pair in hostile}
    assert opinions[HOSTILE["long"][-4000:], "7"] is True
    assert time.monotonic() - begin < 60


def test_hostile_golds() -> None:
    opinions = verify([(r"\boxed{7}", "10^{10^{10}}"), (r"\boxed{7}", "}{"), (r"\boxed{7}", "")])
    assert True not in opinions.values()


def test_folder(tmp_path: Path) -> None:
    with (tmp_path / ledger.ROLLOUTS).open("w") as f:
        for k, text in enumerate(HOSTILE.values()):
            ledger.append(f, rollout(text, k))
    path = grade_folder(tmp_path, [Problem("p", "?", "7", "s")])
    grades = ledger.read_grades(path)
    assert len(grades) == len(HOSTILE)
    exact = [name for name, g in zip(HOSTILE, grades.values(), strict=True) if g.exact]
    assert exact == ["long"]


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"id": "a", "gold": "7", "text": r"<think>x</think>\boxed{7}"},
        {"id": "b", "gold": "7", "text": "<think>x", "finish_reason": "length"},
        {"id": "c", "gold": "7", "text": "seven"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = grade_file(path)
    assert out == tmp_path / "mine.grades.jsonl"
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "a", "state": "boxed", "extracted": "7", "exact": True, "verified": True},
        {"id": "b", "state": "truncated", "extracted": None, "exact": False, "verified": False},
        {"id": "c", "state": "no_box", "extracted": None, "exact": False, "verified": False},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ('{"id": "b", "gold": "7"}', "line 2: no key 'text'"),
        ('{"id": "b", "gold": 7, "text": ""}', "line 2: gold must be text"),
        ('{"id": "b", "gold": "7", "text": "", "finish_reason": "eos"}', "line 2: finish_reason"),
    ],
)
def test_broken_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "gold": "7", "text": "7"}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"mine.jsonl, {message}"):
        grade_file(path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="does not exist"):
        grade_file(tmp_path / "none.jsonl")


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
