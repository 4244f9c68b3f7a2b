"""Writes the run's report: base, SFT, averages and RL, the rollouts' lengths and outcomes,
training, cost and provenance.

Reads only files, so it can be written again at any time, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig

from common.files import MANIFEST, sha256_file, write_text
from common.plots import histogram
from common.text import markdown_table
from data_prep.output.folder import dataset_folder, token_file
from data_prep.tokenizer import token_files
from eval.choice import page as choice_page
from eval.grading.metrics import TOTAL
from eval.report import rl_readiness, rl_training, run_facts, tables, training_curves
from eval.results import average_vs_members, base_vs_sft, lengths, published, rl_vs_sft, siblings
from eval.results.average_vs_members import AverageComparison
from eval.results.base_vs_sft import NEAR_ZERO, Comparison
from eval.results.evaluation import check_graders
from eval.results.rl_vs_sft import RlComparison
from trainer.run import device_hours, rl_metrics
from trainer.run import step_metrics as training
from trainer.run.folder import Run, is_complete

_BUDGET = (
    "pass@1 if rollouts longer than a smaller budget (tokens) counted as wrong. Computed from the "
    "existing rollouts."
)
_AVERAGES = (
    "Means over all problems (micro) and over the sets (macro). The rerun error is the standard "
    "error of pass@1 over rollouts: it shows how much a second evaluation of the same model on the "
    "same problems would vary."
)
_OUTCOMES = (
    "Shares of rollouts: with a complete answer, without one, cut by the budget; accuracy of the "
    "rollouts that stopped by themselves and of those that the budget cut; rollouts that end in a "
    "loop. Identical: the number of rollouts that repeat an earlier one of their problem word for "
    "word."
)

_SIGNAL = (
    "Problems with both right and wrong rollouts; n/(n − 1) p(1 − p), averaged over problems, with "
    "p the share of right ones among a problem's n rollouts: an unbiased estimate of the variance "
    "of its reward; different answers among a problem's rollouts, as exact match tells them apart "
    "(a rollout without an answer adds none). −log p is the mean over tokens, in the distribution "
    "that they were sampled from: at the rollouts' temperature, renormalised over what top-p "
    "leaves; of greedy rollouts, at temperature 1."
)


def write(run: Run, config: DictConfig, partial: bool = False) -> Path:
    """Writes report.md, tokens.png and, if the run was trained, loss.png into the run, and
    reward.png into each start of RL that was; returns the report's path.

    With ``partial``, evaluations that lack some of their rollouts count too, and each of their
    lines states it. Raises UserError when the run has no such evaluation, and when the
    evaluations were graded under different versions of the rules.
    """
    compared = base_vs_sft.newest(run, partial)
    others = base_vs_sft.others(run, compared, partial)
    reinforced = rl_vs_sft.of_run(run, partial)
    averaged = average_vs_members.of_run(run, partial)
    tabled: list[Comparison | AverageComparison | RlComparison] = [compared, *others]
    check_graders(e for c in [*tabled, *averaged, *reinforced] for e in c.all)
    steps = training.read(run)
    manifest = dataset_folder(config) / MANIFEST
    headline = markdown_table(base_vs_sft.headline(compared, config.reference))
    sections = [f"# {run.name}", headline]
    if beside := [c for c in reinforced if c.rl in compared.rl]:
        sections.append(markdown_table(rl_vs_sft.headline(beside)))
    sections.append(_reading(run, compared, config))
    if compared.known.n > 1:
        sections += ["## pass@k", tables.pass_at_k(compared)]
    sections += [
        "## Accuracy against the budget",
        _BUDGET,
        tables.by_budget(compared, config.reference),
    ]
    sections += ["## Averages and rerun error", _AVERAGES, tables.averages(compared)]
    sections += ["## Outcomes", _OUTCOMES, tables.outcomes(compared)]
    sections += ["## Signal for RL", _SIGNAL, tables.signal(compared)]
    drawn = {}
    if manifest.exists():
        table = token_files.read(token_file(manifest.parent, "train"))
        pairs = zip(
            table.column("length").to_pylist(), table.column("prompt_len").to_pylist(), strict=True
        )
        drawn["training answers"] = [length - prompt for length, prompt in pairs]
    for e in compared.all:
        drawn[f"rollouts, {e.label}"] = [r.tokens for r in e.rollouts.values()]
    histogram(run.lengths_picture, drawn, "tokens")
    sections += [
        "## Lengths",
        lengths.table(compared.named),
        f"![tokens]({run.lengths_picture.name})",
    ]
    sections += ["## Grader disagreements", tables.disagreements(compared)]
    sections += ["## RL readiness", rl_readiness.section(compared)]
    if choice := choice_page.section(run, config):
        sections += ["## Which checkpoint", choice]
    if steps:
        training_curves.picture(run.loss_picture, steps)
        sections += ["## Training", run_facts.training(steps)]
        if raised := run_facts.alarms(steps):
            sections.append(raised)
        if share := run_facts.trained_share(config):
            sections.append(f"Trained parameters: {share}.")
        sections.append(f"![loss]({run.loss_picture.name})")
        sections += [run_facts.MILESTONES, run_facts.milestones(steps, config.reference)]
    if averaged:
        sections += ["## Averages of checkpoints", *_averaged(averaged)]
    if rl := [*_rl(run), *_also_rl([c for c in reinforced if c.rl not in compared.rl])]:
        sections += ["## RL", *rl]
    sections += [
        "## Cost",
        device_hours.table(
            device_hours.costs(run, [e.folder for e in compared.all if is_complete(e.folder)])
        ),
    ]
    for other in others:
        sections += [
            f"## Also evaluated: {', '.join(other.known.settings.benchmarks)}",
            markdown_table(base_vs_sft.headline(other, config.reference)),
            f"Protocol: {base_vs_sft.protocol(other.known)}.",
        ]
    dataset = sha256_file(manifest) if manifest.exists() else "no dataset"
    sections += ["## Provenance", run_facts.provenance_table(run, dataset, compared.all)]
    write_text(run.report, "\n\n".join(sections) + "\n")
    return run.report


def _rl(run: Run) -> Iterator[str]:
    """Draws the picture of each start that has trained; yields what it did."""
    starts = rl_training.trained(run)
    for start in starts:
        rl_training.picture(start.picture, rl_metrics.read(start))
        yield rl_training.section(start)
        yield f"![reward]({start.picture.relative_to(run.root).as_posix()})"
    if starts:
        yield rl_training.REGRESSION


def _averaged(comparisons: Sequence[AverageComparison]) -> Iterator[str]:
    """Yields a table and its protocol for each settings of the averages' evaluations."""
    for _, same in groupby(comparisons, lambda c: c.protocol):
        table = list(same)
        yield markdown_table(average_vs_members.headline(table))
        yield f"Protocol: {base_vs_sft.protocol(table[0].average)}."


def _also_rl(comparisons: Sequence[RlComparison]) -> Iterator[str]:
    """Yields a table and its protocol for each settings of RL's evaluations."""
    for _, same in groupby(comparisons, lambda c: c.protocol):
        table = list(same)
        yield markdown_table(rl_vs_sft.headline(table))
        yield f"Protocol: {base_vs_sft.protocol(table[0].rl)}."


def headline(run: Run, config: DictConfig) -> str:
    """Returns the report's first table, for the latest evaluated step."""
    return markdown_table(base_vs_sft.headline(base_vs_sft.newest(run), config.reference))


def _reading(run: Run, compared: Comparison, config: DictConfig) -> str:
    lines = tables.alarms(compared)
    if found := siblings.find(run, compared.sft):
        lines.append(found.sentence())
    for e in compared.all:
        figures = e.figures[TOTAL]
        right = sum(grade.exact for grade in e.grades.values())
        text = f"{e.label}: {right:,} of {figures['rollouts']:,} rollouts right"
        if figures["pass@1"] <= NEAR_ZERO:
            text += ", an accuracy near zero: this model does not solve these problems"
        lines.append(f"{text}.{base_vs_sft.missing(TOTAL, e)}")
    lines += [f"Protocol: {base_vs_sft.protocol(compared.known)}.", base_vs_sft.LEGEND]
    if config.reference:
        lines.append(published.note(config.reference, compared.known))
    return "\n".join(f"- {line}" for line in lines)
