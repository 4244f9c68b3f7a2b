"""RL's models beside SFT and base: in report, page and compare."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import MANIFEST, write_json
from eval.report import report, tables
from eval.results import base_vs_sft, rl_vs_sft
from eval.results.compare import compare
from tests.eval.runs import SETS, empty_run, evaluation, first
from tests.trainer.run.rl_runs import begun, line
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

HASH = "0123abcd"
RL = f"rl_20-{HASH}"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a start from step 7 and evaluations of base, of steps 7 and 9, and of RL."""
    monkeypatch.chdir(tmp_path)
    run = empty_run(Path("runs/mine"))
    begun(run, 7, HASH, lines=[line(i, 0.4) for i in range(1, 21)])
    for label, count in (("base", 0), ("step_7", 3), ("step_9", 4), (RL, 6)):
        evaluation(run, label, SETS, first(count))
    return run


def test_rl_is_paired_with_the_step_that_it_started_from(run: Run) -> None:
    (found,) = rl_vs_sft.of_run(run)
    assert [str(e.label) for e in found.all] == ["base", "step_7", RL]
    titles, *lines = rl_vs_sft.headline([found])
    assert titles == ["pass@1", "base", "SFT, RL's start", "RL", "RL - SFT"]
    name, base, sft, rl, change = lines[0]
    assert name == f"{RL} from step_7, aime2025 (10 problems)"
    assert [cell.partition(" %")[0] for cell in (base, sft, rl)] == ["0.00", "30.00", "60.00"]
    assert change.startswith("+30.00 [")
    assert lines[2][0] == f"{RL} from step_7, all (22 problems)"
    assert lines[3][0] == f"{RL} from step_7, any@4, all"


def test_other_settings_are_no_pair(run: Run) -> None:
    evaluation(run, f"rl_10-{HASH}", SETS, first(5), max_tokens=100)
    other = next(c for c in rl_vs_sft.of_run(run) if c.rl.label.rl == 10)
    assert other.sft is other.base is None and other.step == 7
    _, line, *_ = rl_vs_sft.headline([other])
    assert line[1:3] == ["not evaluated"] * 2 and line[4] == ""


def test_the_newest_comparison_is_of_sft_and_has_rl_beside_it(run: Run) -> None:
    evaluation(run, f"rl_10-{HASH}", SETS, first(5), max_tokens=100)
    found = base_vs_sft.newest(run)
    assert [str(e.label) for e in found.all] == ["base", "step_9", RL]
    assert str(found.known.label) == "step_9" and found.both == found.all[:2]


def test_rl_alone_is_shown(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "runs" / "alone")
    evaluation(run, RL, SETS, first(5))
    assert str(base_vs_sft.newest(run).known.label) == RL
    text = report.write(run, configs.read(run.config)).read_text()
    assert f"| {RL}, all | 45.45 % [" in text.split("## pass@k")[1]
    assert f"{RL}, all (22 problems) | not evaluated | not evaluated | 45.45 % [" in text


def test_the_report_has_rl_in_its_tables_and_its_training(run: Run) -> None:
    evaluation(run, f"rl_10-{HASH}", SETS, first(5), max_tokens=100)
    text = report.write(run, configs.read(run.config)).read_text()
    head, rest = text.split("## pass@k")
    assert "| pass@1 | base | SFT (step_9) |" in head
    assert f"| {RL} from step_7, aime2025 (10 problems) | 0.00 % [" in head
    assert f"{RL}: 48 of 88 rollouts right" in head and "rl_10" not in head
    assert f"| {RL}, aime2025 | 60.00 |" in rest
    section = text.split("## RL\n")[1].split("## Cost")[0]
    assert f"![reward](rl/step_7-{HASH}/reward.png)" in section
    assert f"rl_10-{HASH} from step_7, all (22 problems)" in section
    assert "at most 100 tokens" in section and "regression to the mean" in section
    assert (run.rl_start(7, HASH) / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert f"evaluation of {RL}" in text.split("## Provenance")[1]
    assert "Starting RL from step_9" in text.split("## RL readiness")[1]


def test_compare_takes_rl_by_its_step_alone(run: Run) -> None:
    text = compare(["mine@rl-20", "mine@7"])
    assert f"## A = mine@{RL}, B = mine@step_7" in text and "is worse than" in text
    with pytest.raises(UserError, match=rf"no model rl-30 of RL \(available: rl-20-{HASH}\)"):
        compare(["mine@rl-30", "mine@7"])
    label = ModelLabel(rl=25, start=HASH)
    write_json(run.export(label) / MANIFEST, {"step": 7})
    with pytest.raises(UserError, match=rf"warmstart eval .*mine rl-25-{HASH}"):
        compare(["mine@rl-25", "mine@7"])


def test_published_figures_are_not_set_beside_rl(run: Run) -> None:
    reference = {"source": "card", "pass@1": {"aime2025": {"base": 1.0, "sft": 44.0}}}
    text = tables.by_budget(base_vs_sft.newest(run), reference)
    lines = [x for x in text.splitlines() if "aime2025 |" in x]
    assert [x.endswith("| 44.00 |") for x in lines] == [False, True, False]
    assert lines[0].endswith("| 1.00 |") and lines[2].endswith("|  |")
