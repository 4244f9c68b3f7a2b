"""The run's report: base against SFT, how training went, what the rollouts looked like, where it all came from.

Reads files only, so that it can be written again at any time, on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep import provenance, tokens
from data_prep.files import MANIFEST, read_json, sha256_file, sha256_json, write_text
from data_prep.plots import histogram, loss_curve
from eval import ledger
from eval.evaluate import SETTINGS
from eval.metrics import METRICS, TOTAL
from trainer import config as configs
from trainer import metrics as training
from trainer.rundir import PROVENANCE, Run, is_complete

NEAR_ZERO = 0.02
"""A pass@1 at most this is called near zero."""


@dataclass(frozen=True)
class Evaluation:
    """One complete evaluation, read back."""

    folder: Path
    label: str
    settings: dict[str, Any]
    figures: dict[str, dict[str, Any]]

    @property
    def step(self) -> int:
        return -1 if self.label == "base" else int(self.label.removeprefix("step_"))


def write(run: Run, config: DictConfig) -> Path:
    """Writes report.md, loss.png and tokens.png into the run; returns the report's path.

    Raises ValueError when nothing has been evaluated yet.
    """
    base, sft = _comparison(run)
    steps = training.read(run)
    dataset = Path(config.data.dir) / config.data.name
    sections = [f"# {run.name}", headline(run, config)]
    sections.append(_reading(base, sft, config))
    if steps:
        held_out = {s["step"]: s["val_loss"] for s in steps if s["val_loss"] is not None}
        loss_curve(run.root / "loss.png", {s["step"]: s["loss"] for s in steps}, held_out)
        sections += ["## Training", _training(steps), "![loss](loss.png)"]
    panels = {}
    if (dataset / MANIFEST).exists():
        table = tokens.read(dataset / "tokens" / "train.arrow")
        lengths = zip(table.column("length").to_pylist(), table.column("prompt_len").to_pylist(), strict=True)
        panels["training answers"] = [length - prompt for length, prompt in lengths]
    for e in (base, sft):
        if e:
            panels[f"rollouts, {e.label}"] = [r.tokens for r in ledger.read(e.folder / ledger.ROLLOUTS).values()]
    histogram(run.root / "tokens.png", panels, "tokens")
    sections += ["## Lengths", _lengths(base, sft, config), "![tokens](tokens.png)"]
    sections += ["## Provenance", _provenance(run, config, [e for e in (base, sft) if e])]
    write_text(run.report, "\n\n".join(sections) + "\n")
    return run.report


def headline(run: Run, config: DictConfig) -> str:
    """The model card's table: set, base, SFT, improvement, in percent pass@1, then any@n and perfect@n."""
    base, sft = _comparison(run)
    known = sft or base
    assert known is not None
    n = known.settings["rollouts"]
    published = (config.reference or {}).get("pass1", {})
    titles = ["pass@1", "base", "SFT" + (f" ({sft.label})" if sft else ""), "improvement"]
    titles += ["published base", "published SFT"] if published else []
    rows = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
    names = [name for name in known.figures if name != TOTAL or len(known.figures) > 2]
    for name in names:
        figures = known.figures[name]
        title = f"{'all' if name == TOTAL else name} ({figures['problems']} problems)"
        cells = [title, *_cells(base, sft, name, "pass@1")]
        if published:
            given = published.get(name, {})
            cells += [f"{given[k]:.2f} %" if k in given else "" for k in ("base", "sft")]
        rows.append(cells)
    for metric in (f"any@{n}", f"perfect@{n}", f"maj@{n}"):
        rows.append([f"{metric}, all", *_cells(base, sft, TOTAL, metric), *[""] * (2 if published else 0)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _comparison(run: Run) -> tuple[Evaluation | None, Evaluation | None]:
    """The newest step's evaluation, and the base model's under the same settings."""
    groups: dict[str, dict[int, Evaluation]] = {}
    for folder in run.evaluations:
        if is_complete(folder):
            settings = read_json(folder / SETTINGS)
            same = sha256_json({k: v for k, v in settings.items() if k != "model"})
            found = Evaluation(folder, settings["model"]["label"], settings, read_json(folder / METRICS))
            groups.setdefault(same, {})[found.step] = found
    if not groups:
        raise ValueError(f"{run.root} has no complete evaluation yet: warmstart eval {run.root}")
    newest = max(groups.values(), key=lambda group: (max(group), (group[max(group)].folder / MANIFEST).stat().st_mtime))
    step = max(newest)
    return newest.get(-1), newest[step] if step >= 0 else None


def _cells(base: Evaluation | None, sft: Evaluation | None, name: str, metric: str) -> list[str]:
    values = [e.figures[name][metric] * 100 if e else None for e in (base, sft)]
    cells = ["not evaluated" if v is None else f"{v:.2f} %" for v in values]
    before, after = values
    return [*cells, "" if before is None or after is None else f"{after - before:+.2f}"]


def _reading(base: Evaluation | None, sft: Evaluation | None, config: DictConfig) -> str:
    lines = []
    for e in (base, sft):
        if e:
            figures = e.figures[TOTAL]
            right = round(figures["pass@1"] * figures["rollouts"])
            text = f"{e.label}: {right:,} of {figures['rollouts']:,} rollouts right"
            if figures["pass@1"] <= NEAR_ZERO:
                text += ", an accuracy near zero: this model does not solve these problems"
            lines.append(f"- {text}.")
    known = sft or base
    assert known is not None
    sampling = known.settings
    lines.append(
        f"- Protocol: {sampling['rollouts']} rollouts a problem, temperature {sampling['temperature']}, top-p "
        f"{sampling['top_p']}, at most {sampling['max_tokens']:,} tokens; exact match of the last balanced "
        "`\\boxed{}` after `</think>`."
    )
    if config.reference:
        lines.append(f"- Published figures: {config.reference.source}; measured by its authors, not by this run.")
    return "\n".join(lines)


def _training(steps: list[dict[str, Any]]) -> str:
    last, count = steps[-1], sum(s["tokens"] for s in steps)
    rate = count / sum(s["seconds"] for s in steps)
    balance = sum(s["balance"] for s in steps) / len(steps)
    text = (
        f"{last['step']:,} of {last['total']:,} steps, {count:,} tokens, {rate:,.0f} tokens/s, balance {balance:.1%}; "
        f"loss {steps[0]['loss']:.3f} at the first step, {last['loss']:.4f} at the last"
    )
    if held_out := [s for s in steps if s["val_loss"] is not None]:
        text += f"; {held_out[-1]['val_loss']:.4f} on the held-out rows after step {held_out[-1]['step']:,}"
    if skipped := sum(s["skipped"] for s in steps):
        text += f"; {skipped} steps skipped for gradients that were not finite"
    return text + "."


def _lengths(base: Evaluation | None, sft: Evaluation | None, config: DictConfig) -> str:
    rows = ["| | median tokens | 90 % | longest | hit the budget |", "|---|---:|---:|---:|---:|"]
    for e in (base, sft):
        if e:
            figures, budget = e.figures[TOTAL], e.settings["max_tokens"]
            length = figures["tokens"]
            hits = round(figures["hit_budget"] * figures["rollouts"])
            rows.append(
                f"| {e.label} | {length['p50']:,} | {length['p90']:,} | {length['max']:,} "
                f"| {hits:,} of {figures['rollouts']:,} ({figures['hit_budget']:.1%}) at {budget:,} |"
            )
    return "\n".join(rows)


def _provenance(run: Run, config: DictConfig, evaluations: list[Evaluation]) -> str:
    manifest = Path(config.data.dir) / config.data.name / MANIFEST
    made = next((read_json(a / PROVENANCE) for a in reversed(run.attempts)), None) or {
        "git": provenance.git_commit(),
        "versions": provenance.versions(),
    }
    facts = {
        "git commit": made["git"],
        "config": configs.config_hash(config),
        "dataset manifest": sha256_file(manifest) if manifest.exists() else "no dataset",
        "attempts": str(len(run.attempts)),
        **{f"evaluation of {e.label}": e.folder.name for e in evaluations},
        **{f"{name}.jsonl": value for name, value in evaluations[-1].settings["benchmarks"].items()},
        **made["versions"],
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | `{value}` |" for key, value in facts.items())])
