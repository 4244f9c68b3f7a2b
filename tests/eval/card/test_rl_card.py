"""The card of a model of RL: where it comes from, and its figures beside SFT's and base's."""

import shutil
from pathlib import Path

import pytest

from common.files import MANIFEST, read_json, write_json
from eval.card import card
from tests.eval.card.card_runs import STEP, evaluated, made, metadata
from tests.trainer.run.rl_runs import begun, line
from trainer.run import rl_models
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

HASH = "0123abcd"
LABEL = ModelLabel(rl=20, start=HASH)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The run with an RL start that has done 30 steps, and the export of step 20."""
    run = made(tmp_path)
    lines = [line(i, i / 100, longest=500.0 + i) for i in range(1, 31)]
    start = begun(run, STEP, HASH, checkpoints=(20,), lines=lines)
    sft = read_json(run.export(STEP) / MANIFEST)
    more = {"rl": {"step": 20, **rl_models.facts(start)}, "git": "beef", "versions": {}}
    write_json(run.export(LABEL) / MANIFEST, sft | more)
    return run


def text(run: Run) -> str:
    """The RL model's card, which is written after SFT's."""
    sft, rl = card.refresh(run)
    assert (sft.parent.name, rl.parent.name) == (f"step_{STEP}", str(LABEL))
    return rl.read_text()


def test_it_has_its_figures_beside_those_of_sft_and_base(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 2)
    evaluated(run, LABEL, 3, cut=1)
    found = text(run)
    table = found.split("## Evaluation")[1].split("## How to use")[0]
    (row,) = (x for x in table.splitlines() if x.startswith(f"| {LABEL} from step_2, aime2025"))
    cells = [cell.strip().partition(" [")[0] for cell in row.split("|")[2:-1]]
    assert cells == ["0.00 %", "50.00 %", "75.00 %", "+25.00"]
    assert "Pending" not in found and "Published" not in found
    results = {
        (r.dataset_name, r.metric_type): r.metric_value for r in metadata(found).eval_results
    }
    assert results["aime2025", "pass@1"] == 75.0
    for label in ("base", f"step_{STEP}", str(LABEL)):
        assert f"| evaluation of {label} |" in found


def test_it_says_how_it_was_made(run: Run) -> None:
    found = text(run)
    for expected in (
        "# sft_4b-rl\n",
        f"then 20 steps of GRPO (start `step_2-{HASH}`) on 120 problems, 8 rollouts of each, "
        "learning rate 1e-06.",
        "after 2 steps of supervised fine-tuning of all its 4.02B parameters",
        "| steps | 20 (planned: 40) |",
        "60 never solved and 20 always solved were left out; 7 are also rows of SFT",
        "| training reward, mean of 5 steps | 0.030 | 0.180 | +0.150 |",
        "In 9 of 20 steps a rollout reached the budget of 512 tokens.",
        "![reward by step](reward.png)",
        f"| RL (step_2-{HASH}) | 0.4 GPU-hours | 20 steps on 2 GPUs",
        f"| start of RL | `step_2-{HASH}` |",
        "20 steps of RL after 2 steps of SFT",
        "regression to the mean",
    ):
        assert expected in found, expected
    assert (run.export(LABEL) / "reward.png").read_bytes().startswith(b"\x89PNG")
    tags = metadata(found).tags
    assert {"rl", "grpo", "sft"} <= set(tags) and "rl-warm-start" not in tags


def test_its_limitations_are_those_of_rl(run: Run) -> None:
    found = text(run).split("## Limitations")[1].split("## Licence")[0]
    assert "RL rewarded the final answers of 120 problems." in found
    assert "A rollout of RL had at most 512 tokens" in found
    assert "trained to reason for longer" not in found and "No row of SFT has more than" in found
    assert "It has not been evaluated" in found
    whole = text(run)
    assert "added no RL" not in whole and "warm start for" not in whole


def test_what_is_not_evaluated_is_pending(run: Run) -> None:
    evaluated(run, BASE, 0)
    found = text(run)
    pending = f"Pending:\n- {LABEL}: not evaluated yet\n- step_{STEP}: not evaluated yet"
    assert pending in found.replace("- base: not evaluated yet\n", "")
    evaluated(run, LABEL, 3)
    assert f"Pending:\n- step_{STEP}: not evaluated yet\n" in text(run)


def test_it_outlives_its_start(run: Run) -> None:
    evaluated(run, ModelLabel(STEP), 2)
    evaluated(run, LABEL, 3)
    before = text(run)
    shutil.rmtree(run.rl)
    after = text(run)
    assert f"| {LABEL} from step_{STEP}, " in after and "20 steps of GRPO" in after
    assert "training reward" in before and "training reward" not in after
    assert "![reward by step](reward.png)" in after


def test_sfts_card_is_the_same_with_and_without_rl(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 2)
    evaluated(run, LABEL, 3)
    sft = card.refresh(run)[0].read_text()
    shutil.rmtree(run.rl)
    shutil.rmtree(run.export(LABEL))
    for folder in run.evaluations:
        if str(LABEL) in folder.name:
            shutil.rmtree(folder)
    assert card.refresh(run)[0].read_text() == sft
