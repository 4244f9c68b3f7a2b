"""``warmstart choose`` of several replicates: what is a candidate, what the tests are over, which
step each run starts RL from.
"""

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import MANIFEST, write_json
from eval.choice import columns, replicated
from eval.choice.replicated_page import text
from eval.choice.rule import HELD_OUT, choose
from eval.grading import replicates
from tests.eval.choice.conftest import SETS, solves, trained
from tests.eval.choice.test_columns import with_logprobs
from tests.eval.replicate_runs import changed, replicate
from tests.eval.runs import Answer, evaluation
from trainer.run.folder import Run
from warmstart.cli import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.chdir(tmp_path)
    return [replicate(Path("runs") / name, seed) for seed, name in enumerate("abc", 1)]


def evaluated(run: Run, label: str, answer: Answer, **more: object) -> Path:
    export = run.root / "export" / label / MANIFEST
    if not export.exists():
        write_json(export, {"average": {"members": [], "base": "0"}})
    return evaluation(run, label, SETS, answer, **more)


def all_evaluated(runs: list[Run], ends: dict[str, tuple[int, ...]]) -> None:
    for label, of in ends.items():
        for run, end in zip(runs, of, strict=True):
            evaluated(run, label, solves(range(end)))


CLEAR = {"step_10": (4, 5, 4), "step_20": (24, 25, 25)}
CLOSE = {"step_10": (14, 15, 19), "step_20": (16, 15, 15)}


def test_a_clear_best_is_recommended_and_every_run_has_its_command(
    runs: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    all_evaluated(runs, CLEAR)
    assert main(["choose", "a,runs/b,c"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Candidates of 3 runs: a, b, c.\n\n**step_20 is recommended**: every ")
    row = next(line for line in said.splitlines() if line.startswith("| step_10 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    field = replicated.find(runs)
    pair = replicates.all_pairs([c.runs for c in field.candidates]).between(1, 0)
    bounds = f"[{pair.lower * 100:+.1f}, {pair.upper * 100:+.1f}]"
    assert cells == ["step_10", f"{pair.mean * 100:+.2f} {bounds}", f"{pair.p:.4f}", "worse"]
    for name in "abc":
        assert f"- {name} starts RL from step_20: `warmstart rl runs/{name} 20`.\n" in f"{said}\n"
    assert "Bonferroni" in said and "own evaluations" not in said and "Left out" not in said


def test_columns_are_means_over_runs_with_intervals_over_runs_and_problems(
    runs: list[Run],
) -> None:
    all_evaluated(runs, CLEAR)
    for run, loss in zip(runs, (0.5, 0.6, 0.7), strict=True):
        trained(run, {20: loss})
    field = replicated.find(runs)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in columns.table_of_runs([c.members for c in field.candidates]).splitlines()
    ]
    cells = {line[0]: line[2] for line in lines}
    found = replicates.mean(field.candidates[1].runs)
    mean = 100 * (24 + 25 + 25) * 2 / (70 * 3)
    assert cells["pass@4"] == f"{mean:.2f} % [{found.lower * 100:.1f}, {found.upper * 100:.1f}]"
    assert cells["held-out loss"] == "0.6000" and cells["hit the budget"].startswith("0.00 % [")
    assert cells["−log p, nats per token"] == "not recorded"
    for run, value in zip(runs, (0.2, 0.3, 0.7), strict=True):
        folder = next(f for f in run.evaluations if "step_20" in f.name)
        means = {f"{name}/{i}": [-value] * 4 for name, n in SETS.items() for i in range(n)}
        with_logprobs(folder, means)
    shown = columns.surprisal(*replicated.find(runs).candidates[1].members)
    assert shown is not None and shown.mean == pytest.approx(0.4)
    # Problems alike: Student's t over three runs.
    assert shown.upper - shown.mean == pytest.approx(4.3027 * 0.26458 / 3**0.5, rel=1e-4)


def test_what_cannot_be_told_apart_over_seeds_falls_to_the_tie_rule(runs: list[Run]) -> None:
    all_evaluated(runs, CLOSE)
    for run in runs:
        trained(run, {10: 0.4, 20: 0.5})
    said = text(runs)
    assert "**These do not differ significantly in pass@4: step_10, step_20.**" in said
    assert "lowest held-out loss (0.4000), **step_10** is recommended" in said
    candidates = replicated.find(runs).candidates
    choice = choose(candidates, replicates.all_pairs([c.runs for c in candidates]))
    assert choice.decided_by == HELD_OUT


def test_what_one_run_shows_alone_is_told_as_that_runs_figure(runs: list[Run]) -> None:
    """In c alone step 10 is far better; over seeds that is no finding."""
    all_evaluated(runs, {"step_10": (25, 15, 15), "step_20": (9, 16, 16)})
    for run in runs:
        trained(run, {10: 0.5, 20: 0.4})
    said = text(runs)
    assert "**step_20** is recommended" in said
    line = "- a starts RL from step_20: `warmstart rl runs/a 20` (its own evaluations alone would "
    assert f"{line}take step_10)." in said and "not the recipe's" in said


def test_a_model_that_a_run_lacks_is_no_candidate(runs: list[Run]) -> None:
    all_evaluated(runs, CLEAR)
    evaluated(runs[0], "step_30", solves(range(30)))
    said = text(runs)
    assert "- step_30 is a candidate of some runs and not of b, c." in said
    assert [str(c.label) for c in replicated.find(runs).candidates] == ["step_10", "step_20"]
    for run, step in zip(runs, (1, 2, 3), strict=True):
        made = {"members": [{"step": step, "weight": "1"}], "base": "0"}
        write_json(run.root / "export" / "avg_mine" / MANIFEST, {"average": made})
        evaluated(run, "avg_mine", solves(range(30)))
    assert "- avg_mine is an average of other steps or shares in each run." in text(runs)


def test_one_or_no_model_in_common(runs: list[Run]) -> None:
    evaluated(runs[0], "step_10", solves(range(5)))
    with pytest.raises(UserError, match=r"runs/b has no complete evaluation"):
        text(runs)
    evaluated(runs[1], "step_20", solves(range(5)))
    with pytest.raises(UserError, match=r"in all of a, b:\n- step_10 is a candidate of some runs"):
        text(runs[:2])
    evaluated(runs[1], "step_10", solves(range(5)))
    assert "Only step_10 is evaluated in every run" in text(runs[:2])


def test_runs_that_are_no_replicates_are_refused(
    runs: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    all_evaluated(runs, CLEAR)
    for words, told in (
        ("a,a", "in the group twice"),
        ("a,nothing", "no run at nothing"),
        ("a,", "has an empty member"),
    ):
        assert main(["choose", words]) == 2
        assert told in capsys.readouterr().err
    changed(runs[1], train__weight_decay=0.5, verl__optim__weight_decay=0.5)
    with pytest.raises(UserError, match=r"train\.weight_decay: 0\.01 -> 0\.5"):
        text(runs)
    changed(runs[1], train__weight_decay=0.01, verl__optim__weight_decay=0.01, train__seed=1)
    with pytest.raises(UserError, match=r"same train\.seed \(1\)"):
        text(runs)


def test_runs_evaluated_otherwise_are_refused(runs: list[Run]) -> None:
    for run, more in zip(runs, ({}, {"max_tokens": 99}, {"grader": 1}), strict=True):
        for label in ("step_10", "step_20"):
            evaluated(run, label, solves(range(9)), **more)
    with pytest.raises(
        UserError, match="not evaluated under the same settings: max_tokens: 32768 -> 99"
    ):
        text(runs[:2])
    with pytest.raises(UserError, match="graded under different versions"):
        text([runs[0], runs[2]])
