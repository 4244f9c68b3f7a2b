"""The card of an average: its members, their sources, and its figures beside theirs."""

from pathlib import Path

import pytest

from common.files import MANIFEST, read_json, write_json
from eval.card import card
from tests.eval.card.card_runs import STEP, evaluated, made, metadata
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

LABEL = ModelLabel(average="1-2-base30")
MEMBERS = [
    {"step": 1, "weight": "1/4", "source": "export", "manifest": "a" * 64},
    {"step": STEP, "weight": "3/4", "source": "checkpoint", "manifest": "b" * 64},
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The run with an average of two steps and the base model."""
    run = made(tmp_path)
    sft = read_json(run.export(STEP) / MANIFEST)
    base = {"model/config.json": "c" * 64}
    average = {"members": MEMBERS, "base": "3/10", "base_model": base}
    write_json(run.export(LABEL) / MANIFEST, sft | {"average": average, "git": "beef"})
    return run


def text(run: Run) -> str:
    """The average's card, which is written after SFT's."""
    sft, average = card.refresh(run)
    assert (sft.parent.name, average.parent.name) == (f"step_{STEP}", str(LABEL))
    return average.read_text()


def test_it_says_what_it_is_made_of_and_that_it_was_never_trained(run: Run) -> None:
    found = text(run)
    for expected in (
        "# sft_4b-avg-1-2-base30\n",
        "The average of 2 checkpoints (steps 1, 2) of one run, moved towards the base model by 30",
        "**These weights were never trained:**",
        "| step 1 | 17.5 % | its export (bf16) |",
        "| step 2 | 52.5 % | its checkpoint (fp32) |",
        "| base model | 30 % | its safetensors, [Qwen/Qwen3-4B-Base]",
        "(arXiv 2504.10478, 2606.09932)",
        "- It is an average of weights that no training step produced.",
        f"| checkpoint of step 2 | `{'b' * 64}` |",
        f"| base model/config.json | `{'c' * 64}` |",
        "The average itself was not trained. This is the training up to step 2",
        "an average of the SFT steps 1, 2, 30 % of the base model",
    ):
        assert expected in found, expected
    assert {"merge", "sft"} <= set(metadata(found).tags)
    assert f"Pending:\n- base: not evaluated yet\n- {LABEL}: not evaluated yet\n- step_1:" in found


def test_it_has_its_figures_beside_those_of_members_and_base(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 2)
    evaluated(run, LABEL, 3)
    found = text(run)
    table = found.split("## Evaluation")[1].split("## How to use")[0]
    rows = [x for x in table.splitlines() if x.startswith(f"| {LABEL}, step_2, aime2025")]
    cells = [cell.strip().partition(" [")[0] for cell in rows[0].split("|")[2:-1]]
    assert cells == ["0.00 %", "50.00 %", "75.00 %", "+25.00"]
    assert "Pending:\n- step_1: not evaluated yet\n" in found and "Published" not in found
    results = {
        (r.dataset_name, r.metric_type): r.metric_value for r in metadata(found).eval_results
    }
    assert results["aime2025", "pass@1"] == 75.0
    for label in ("base", "step_2", str(LABEL)):
        assert f"| evaluation of {label} |" in found


def test_sfts_card_is_the_same_with_and_without_an_average(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 2)
    before = card.write(run, run.export(STEP)).read_text()
    evaluated(run, LABEL, 3)
    assert card.refresh(run)[0].read_text() == before
