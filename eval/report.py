"""The run's report: base against SFT, how training went, what the rollouts looked like, where it all came from.

Reads files only, so that it can be written again at any time, on any machine.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from data_prep import tokens
from data_prep.files import MANIFEST, sha256_file, write_text
from data_prep.plots import histogram
from eval import comparison, facts, ledger
from eval.comparison import NEAR_ZERO, Comparison
from eval.metrics import TOTAL
from trainer import costs
from trainer import metrics as training
from trainer.rundir import Run


def write(run: Run, config: DictConfig) -> Path:
    """Writes report.md, loss.png and tokens.png into the run; returns the report's path.

    Raises ValueError when nothing has been evaluated yet.
    """
    compared = comparison.newest(run)
    steps = training.read(run)
    manifest = facts.dataset_folder(config) / MANIFEST
    sections = [f"# {run.name}", comparison.table(compared, config.reference), _reading(compared, config)]
    if steps:
        facts.loss_picture(run.root / "loss.png", steps)
        sections += ["## Training", facts.training(steps), "![loss](loss.png)"]
    panels = {}
    if manifest.exists():
        table = tokens.read(manifest.parent / "tokens" / "train.arrow")
        lengths = zip(table.column("length").to_pylist(), table.column("prompt_len").to_pylist(), strict=True)
        panels["training answers"] = [length - prompt for length, prompt in lengths]
    for e in compared.both:
        panels[f"rollouts, {e.label}"] = [r.tokens for r in ledger.read(e.folder / ledger.ROLLOUTS).values()]
    histogram(run.root / "tokens.png", panels, "tokens")
    sections += ["## Lengths", comparison.lengths(compared), "![tokens](tokens.png)"]
    sections += ["## Cost", costs.table(costs.costs(run, [e.folder for e in compared.both]))]
    dataset = sha256_file(manifest) if manifest.exists() else "no dataset"
    sections += ["## Provenance", facts.provenance_table(run, dataset, compared.both)]
    write_text(run.report, "\n\n".join(sections) + "\n")
    return run.report


def headline(run: Run, config: DictConfig) -> str:
    """The report's first table, of the newest step that was evaluated."""
    return comparison.table(comparison.newest(run), config.reference)


def _reading(compared: Comparison, config: DictConfig) -> str:
    lines = []
    for e in compared.both:
        figures = e.figures[TOTAL]
        right = round(figures["pass@1"] * figures["rollouts"])
        text = f"{e.label}: {right:,} of {figures['rollouts']:,} rollouts right"
        if figures["pass@1"] <= NEAR_ZERO:
            text += ", an accuracy near zero: this model does not solve these problems"
        lines.append(f"- {text}.")
    lines.append(f"- Protocol: {comparison.protocol(compared.known)}.")
    lines.append(f"- {comparison.LEGEND}")
    if config.reference:
        lines.append(f"- {comparison.published(config.reference)}")
    return "\n".join(lines)
