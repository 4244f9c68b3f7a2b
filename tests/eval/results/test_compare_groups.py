"""``warmstart compare`` with groups: which members it takes, and what it says of runs and problems
together.
"""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.files import MANIFEST, write_json
from common.records import Problem
from eval.grading import replicates
from eval.results.compare import compare
from tests.eval.replicate_runs import changed, replicate
from tests.eval.runs import Answer, evaluation
from trainer.run.folder import Run

SETS = {"aime2025": 15, "amc2023": 20}


def solves(first: int, last: int) -> Answer:
    """Solves these problems of each set in three of four rollouts."""
    return lambda p, k: p.answer if first <= int(p.answer) < last and k != 1 else "x"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Three replicates, ``a``, ``b`` and ``c``, with the seeds 1, 2 and 3."""
    monkeypatch.chdir(tmp_path)
    return [replicate(tmp_path / "runs" / name, seed) for seed, name in enumerate("abc", 1)]


def evaluated(runs: list[Run], label: str, ends: tuple[int, ...], **settings: Any) -> None:
    for run, end in zip(runs, ends, strict=True):
        evaluation(run, label, SETS, solves(0, end), **settings)


def values(*ends: int) -> list[list[list[float]]]:
    """The runs' pass@1 by set and problem."""
    return [[[0.75 * (i < end) for i in range(n)] for n in SETS.values()] for end in ends]


def line(text: str, title: str) -> list[str]:
    found = next(x for x in text.splitlines() if x.startswith(f"| {title} |"))
    return [cell.strip() for cell in found.strip("|").split(" | ")]


def test_a_group_alone_has_its_mean_its_spread_and_its_runs(runs: list[Run]) -> None:
    evaluated(runs, "step_7", (5, 6, 7))
    text = compare(["a,runs/b@7,c@step_7"])
    found, spread = replicates.mean(values(5, 6, 7)), replicates.spread(values(5, 6, 7))
    cells = line(text, "a, b, c @ step_7")
    mean = 100 * 0.75 * (2 * 6 * 3) / (35 * 3)
    assert cells[1] == "3"
    assert cells[4] == f"{mean:.2f} % [{found.lower * 100:.1f}, {found.upper * 100:.1f}]"
    assert f"{spread.deviation * 100:.2f} [" in cells[5]
    assert ("not significantly above 0" in cells[5]) == (not spread.is_told)
    assert line(text, "a@step_7")[1] == "1" and line(text, "c@step_7")[1] == "3"
    assert line(text, "b@step_7")[4].startswith(f"{100 * 0.75 * 12 / 35:.2f} % [")
    assert "over training seeds and problems" in text and "## A = " not in text


def test_two_groups_are_compared_over_runs_and_problems(runs: list[Run], tmp_path: Path) -> None:
    others = [
        replicate(tmp_path / "runs" / name, seed, train__lr=0.5, verl__optim__lr=0.5)
        for seed, name in enumerate("de", 1)
    ]
    evaluated(runs, "step_7", (4, 4, 5))
    evaluated(others, "step_7", (13, 14))
    text = compare(["a,b,c", "d,e"])
    found = replicates.difference(values(4, 4, 5), values(13, 14))
    cells = line(text, "all")
    interval = f"[{found.lower * 100:+.1f}, {found.upper * 100:+.1f}]"
    assert cells[1:3] == ["35", f"{found.mean * 100:+.2f} {interval}"]
    assert cells[4] == ("B is better" if found.is_told else "not significant")
    assert "the runs of A and B are independent" in text
    # A single run of another recipe, and the base model: each says what its interval is about.
    one = compare(["d", "a,b,c"])
    assert "A is one run: for it the interval is over problems alone" in one
    assert line(one, "d@step_7")[1] == "1" and line(one, "d@step_7")[5] == "unknown"
    evaluated(runs[:1], "base", (1,))
    base = compare(["a@base", "a,b,c"])
    assert "A is the base model, which has no training seed." in base and "one run:" not in base
    assert "**a, b, c @ step_7 " in base


def test_steps_of_the_same_runs_are_paired_by_run(runs: list[Run]) -> None:
    evaluated(runs, "step_7", (3, 6, 9))
    evaluated(runs, "step_9", (5, 8, 11))
    text = compare(["a@7,b@7,c@7", "c@9,a@9,b@9"])
    assert "differences are paired by run and by problem" in text
    changes = [
        [[y - x for x, y in zip(s, t, strict=True)] for s, t in zip(one, two, strict=True)]
        for one, two in zip(values(3, 6, 9), values(5, 8, 11), strict=True)
    ]
    found = replicates.change(changes)
    interval = f"[{found.lower * 100:+.1f}, {found.upper * 100:+.1f}]"
    assert line(text, "all")[2] == f"{found.mean * 100:+.2f} {interval}"
    assert found.is_told and "B is better" in line(text, "all")[4]
    with pytest.raises(UserError, match=r"share only some runs \(a, b\)"):
        compare(["a@7,b@7,c@7", "a@9,b@9"])
    with pytest.raises(UserError, match="share only some runs"):
        compare(["a@7,b@7,c@7", "a@9"])


def test_base_models_as_a_group_are_called_one_model(runs: list[Run]) -> None:
    evaluated(runs, "base", (2, 2, 2))
    text = compare(["a@base,b@base,c@base"])
    assert "the base model is one model, which no training seed changes" in text
    assert "not significantly above 0 (0.00 [0, 0.00])" in text


def test_members_that_are_no_replicates_are_refused_by_setting(runs: list[Run]) -> None:
    evaluated(runs, "step_7", (5, 6, 7))
    changed(runs[1], train__lr=0.125, train__max_steps=9)
    with pytest.raises(
        UserError, match=r"a and .*b are not replicates.*train\.lr: 0\.002 -> 0\.125"
    ):
        compare(["a,b,c"])
    changed(runs[1], train__lr=0.002, train__max_steps=None, data__seed=4)
    with pytest.raises(UserError, match=r"data\.seed: .* -> 4\. Compare them as two targets"):
        compare(["a,b"])


def test_another_dataset_or_base_model_is_another_recipe(runs: list[Run]) -> None:
    evaluated(runs, "step_7", (5, 6, 7))
    for run, dataset in zip(runs, ("d1", "d1", "d2"), strict=True):
        attempt = run.new_attempt()
        write_json(attempt.provenance, {"identity": {"dataset": dataset, "model/config.json": "m"}})
    changed(runs[1], model__path="/elsewhere/the/same/base")
    assert "a, b @ step_7" in compare(["a,b"])
    with pytest.raises(UserError, match="dataset: d1 -> d2"):
        compare(["a,c"])


def test_hostile_groups(runs: list[Run], tmp_path: Path) -> None:
    evaluated(runs, "step_7", (5, 6, 7))
    evaluated(runs[:2], "step_9", (5, 6))
    evaluation(runs[2], "base", SETS, solves(0, 2))
    for target, words in (
        ("a,a", "is in the group twice"),
        (f"a,{tmp_path}/runs/a", "is in the group twice"),
        ("a@7,a@9", "is in the group twice"),
        ("a@9,c@7", "because step_9 is not step_7"),
        ("a,c", "because step_9 is not step_7"),
        ("a@7,c@base", "because step_7 is not base"),
        ("a@9,c@9", "no complete evaluation of 9"),
        ("a@7,nothing", "nothing is neither a run"),
        ("a@7,,b@7", "has an empty member"),
        ("a@7,b@7,", "has an empty member"),
    ):
        with pytest.raises(UserError, match=words):
            compare([target])
    with pytest.raises(UserError, match="a group needs complete evaluations"):
        compare(["a@7,b@7"], partial=True)
    changed(runs[1], train__seed=1, verl__engine__seed=1)
    with pytest.raises(UserError, match=r"same train\.seed \(1\)"):
        compare(["a@7,b@7"])


def test_members_evaluated_otherwise_are_refused(runs: list[Run]) -> None:
    evaluated(runs[:1], "step_7", (5,))
    evaluated(runs[1:2], "step_7", (5,), rollouts=2)
    evaluated(runs[2:], "step_7", (5,), grader=1)
    with pytest.raises(UserError, match="not evaluated under the same settings: rollouts: 4 -> 2"):
        compare(["a,b"])
    with pytest.raises(UserError, match=r"different versions of the rules.*warmstart grade"):
        compare(["a,c"])
    evaluated(runs[2:], "step_9", (5,), seed=7)
    evaluated(runs[:1], "step_9", (6,))
    assert "a, c @ step_9" in compare(["a@9,c@9"])


def test_averages_of_other_steps_are_no_replicates(runs: list[Run]) -> None:
    evaluated(runs[:2], "avg_mine", (5, 6))
    for run, step in zip(runs, (7, 8), strict=False):
        made = {"members": [{"step": step, "weight": "1"}], "base": "0"}
        write_json(run.root / "export" / "avg_mine" / MANIFEST, {"average": made})
    with pytest.raises(UserError, match="their members or shares differ"):
        compare(["a@avg-mine,b@avg-mine"])


def test_models_of_rl_are_no_group(runs: list[Run]) -> None:
    for run in runs[:2]:
        evaluation(run, "rl_5-0123abcd", SETS, solves(0, 9))
    targets = [str(run.evaluations[0]) for run in runs[:2]]
    with pytest.raises(UserError, match="models of RL, whose settings are not compared"):
        compare([",".join(targets)])


def test_a_comma_in_a_name_separates_nothing(runs: list[Run], tmp_path: Path) -> None:
    def solved(problem: Problem, k: int) -> str:
        return problem.answer

    odd = replicate(tmp_path / "runs" / "a,b", 4)
    evaluation(odd, "step_7", SETS, solved)
    evaluated(runs, "step_7", (5, 6, 7))
    assert line(compare(["a,b", "c"]), "a,b@step_7")[3].startswith("100.00 % [")
    text = compare(["a,b@7,c@7"])
    assert line(text, "a,b, c @ step_7")[1] == "2"
    assert "a, b, c @ step_7" in compare(["b@7,a@7,c@7"]).replace("b, a, c", "a, b, c")
