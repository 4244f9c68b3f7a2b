"""The sections that report.md and report.html share, with the same text and figures. Each writer
adds its own pictures or charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, sha256_file
from common.text import markdown_table
from data_prep.output.folder import dataset_folder, token_file
from data_prep.tokenizer import token_files
from eval.choice import page as choice_page
from eval.grading.metrics import TOTAL
from eval.report import checkpoints, rl_readiness, rl_training, run_facts, tables
from eval.report.checkpoints import Checkpoints
from eval.results import average_vs_members, base_vs_sft, lengths, published, rl_vs_sft, siblings
from eval.results.average_vs_members import AverageComparison
from eval.results.base_vs_sft import NEAR_ZERO, OTHERWISE, Comparison, marked
from eval.results.evaluation import Evaluation, check_graders
from eval.results.rl_vs_sft import RlComparison
from trainer.run import device_hours
from trainer.run import step_metrics as training
from trainer.run.folder import Run, is_complete
from trainer.run.rl_start import RlStart

_BUDGET = (
    "pass@1 if rollouts longer than a smaller budget (tokens) counted as wrong. Computed from the "
    "existing rollouts."
)
_AVERAGES = (
    "Means over all problems (micro) and over the sets (macro). The rerun error (±) is the "
    "standard error of pass@1 over rollouts: it shows how much a second evaluation of the same "
    "model on the same problems would vary."
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


@dataclass(frozen=True)
class Picture:
    """A picture of report.md; the page has charts in its place."""

    alt: str
    path: Path


@dataclass(frozen=True)
class Section:
    """A section, as paragraphs, lists and tables in Markdown, and pictures."""

    id: str
    title: str
    parts: Sequence[str | Picture]
    listed: Sequence[str] = ()
    """Text that follows only in report.md; the page has a longer list instead."""

    @property
    def text(self) -> str:
        """The parts without the pictures."""
        return "\n\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class Contents:
    """The content of a run's report, read from its files."""

    run: Run
    config: DictConfig
    compared: Comparison
    others: Sequence[Comparison]
    """The same model under other settings."""
    averaged: Sequence[AverageComparison]
    reinforced: Sequence[RlComparison]
    steps: Sequence[dict[str, Any]]
    """The metrics of training."""
    starts: Sequence[RlStart]
    """RL's starts that have done a step."""
    checkpoints: Checkpoints | None

    @cached_property
    def answers(self) -> list[int]:
        """Tokens of the training rows' answers; empty if the dataset is not there."""
        manifest = self._manifest
        if not manifest.exists():
            return []
        table = token_files.read(token_file(manifest.parent, "train"))
        pairs = zip(
            table.column("length").to_pylist(), table.column("prompt_len").to_pylist(), strict=True
        )
        return [length - prompt for length, prompt in pairs]

    @property
    def headlines(self) -> list[list[list[str]]]:
        """Tables of SFT against the base model, and of RL's models under the same settings."""
        tabled = [base_vs_sft.headline(self.compared, self.config.reference)]
        if beside := [c for c in self.reinforced if c.rl in self.compared.rl]:
            tabled.append(rl_vs_sft.headline(beside))
        return tabled

    @property
    def reading(self) -> list[str]:
        """How to read the headline, as sentences."""
        lines = []
        if found := siblings.find(self.run, self.compared.sft):
            lines.append(found.sentence())
        for e in self.compared.all:
            figures = e.figures[TOTAL]
            right = sum(grade.exact for grade in e.grades.values())
            text = f"{e.name}: {right:,} of {figures['rollouts']:,} rollouts right"
            if figures["pass@1"] <= NEAR_ZERO:
                text += ", an accuracy near zero: this model does not solve these problems"
            lines.append(f"{text}.{base_vs_sft.missing(TOTAL, e)}")
        lines += [f"Protocol: {base_vs_sft.protocol(self.compared.known)}.", self.compared.legend]
        if self.config.reference:
            lines.append(published.note(self.config.reference, self.compared.known))
        return lines

    def sections(self) -> Iterator[Section]:
        """Yields the sections below the headline."""
        compared, run = self.compared, self.run
        if self.checkpoints:
            picture = Picture("checkpoints", run.checkpoints_picture)
            text = checkpoints.section(self.checkpoints)
            yield Section("checkpoints", "Across checkpoints", [text, picture])
        if compared.known.n > 1:
            yield _tabled("pass-at-k", "pass@k", "", tables.pass_at_k(compared))
        budget = tables.by_budget(compared, self.config.reference)
        yield _tabled("budget", "Accuracy against the budget", _BUDGET, budget)
        averages = tables.averages(compared)
        yield _tabled("rerun-error", "Averages and rerun error", _AVERAGES, averages)
        yield _tabled("outcomes", "Outcomes", _OUTCOMES, tables.outcomes(compared))
        yield _tabled("signal", "Signal for RL", _SIGNAL, tables.signal(compared))
        own = [lengths.text(compared.named), lengths.table(compared.named)]
        yield Section("lengths", "Lengths", [*own, Picture("tokens", run.lengths_picture)])
        counts = "\n".join(f"- {line}" for line in tables.disagreement_counts(compared))
        listed = tables.disagreements(compared)
        yield Section("graders", "Grader disagreements", [counts], listed)
        yield Section("readiness", "RL readiness", [rl_readiness.section(compared)])
        if choice := choice_page.section(run, self.config):
            yield _tabled("candidates", "Which checkpoint", "", choice)
        if self.steps:
            yield Section("training", "Training", list(self._training()))
        if self.averaged:
            yield Section("averages", "Averages of checkpoints", list(_averaged(self.averaged)))
        if rl := list(self._rl()):
            yield Section("rl", "RL", rl)
        yield Section("cost", "Cost", [self._cost()])
        for number, other in enumerate(self.others, start=1):
            suite = ", ".join(other.known.settings.benchmarks)
            parts = self._also(other)
            yield Section(f"also-{number}", f"Also evaluated: {suite}", parts)
        yield Section("provenance", "Provenance", [self._provenance()])

    @property
    def _manifest(self) -> Path:
        return dataset_folder(self.config) / MANIFEST

    def _evaluations(self) -> list[Evaluation]:
        """Returns the evaluations whose figures are shown, each once."""
        across = [c.evaluation for c in self.checkpoints.models] if self.checkpoints else []
        shown = [*self.compared.all, *across, *(c.known for c in self.others)]
        return list({e.folder: e for e in shown}.values())

    def _training(self) -> Iterator[str | Picture]:
        yield run_facts.training(self.steps)
        if raised := run_facts.alarms(self.steps):
            yield raised
        if share := run_facts.trained_share(self.config):
            yield f"Trained parameters: {share}."
        yield Picture("loss", self.run.loss_picture)
        yield run_facts.MILESTONES
        yield run_facts.milestones(self.steps, self.config.reference)

    def _rl(self) -> Iterator[str | Picture]:
        for start in self.starts:
            yield rl_training.section(start)
            yield Picture("reward", start.picture)
        if self.starts:
            yield rl_training.REGRESSION
        also = [c for c in self.reinforced if c.rl not in self.compared.rl]
        for _, same in groupby(also, lambda c: c.protocol):
            alike = list(same)
            yield from _with_protocol(rl_vs_sft.headline(alike), alike[0].rl)

    def _cost(self) -> str:
        folders = [e.folder for e in self._evaluations() if is_complete(e.folder)]
        return device_hours.table(device_hours.costs(self.run, folders))

    def _provenance(self) -> str:
        dataset = sha256_file(self._manifest) if self._manifest.exists() else "no dataset"
        if self.compared.bare:
            facts = {"model": self.config.model.path, "revision": self.config.model.revision}
        else:
            facts = {"dataset manifest": dataset, "attempts": len(self.run.attempts)}
        return run_facts.provenance_table(self.run, facts, self._evaluations())

    def _also(self, other: Comparison) -> list[str]:
        table = base_vs_sft.headline(other, self.config.reference)
        parts = list(_with_protocol(table, other.known))
        if OTHERWISE in parts[0]:
            parts.append(published.note(self.config.reference, other.known))
        return parts


def read(run: Run, config: DictConfig, partial: bool = False) -> Contents:
    """Returns the content for the run's latest evaluated step, the base model, averages and RL.

    With ``partial``, evaluations that lack some of their rollouts count too, and each of their
    lines states it. Raises UserError when the run has no such evaluation, and when the evaluations
    were graded under different versions of the rules.
    """
    compared = base_vs_sft.newest(run, partial)
    others = base_vs_sft.others(run, compared, partial)
    reinforced = rl_vs_sft.of_run(run, partial)
    averaged = average_vs_members.of_run(run, partial)
    tabled: list[Comparison | AverageComparison | RlComparison] = [compared, *others]
    check_graders(e for c in [*tabled, *averaged, *reinforced] for e in c.all)
    steps = training.read(run)
    return Contents(
        run,
        config,
        compared,
        others,
        averaged,
        reinforced,
        steps,
        rl_training.trained(run),
        checkpoints.find(compared, steps),
    )


def _tabled(id: str, title: str, text: str, table: str) -> Section:
    """Returns a section with a table, a text that explains it, and the meaning of its marks."""
    return Section(id, title, [part for part in (text, table, *marked(table)) if part])


def _with_protocol(table: Sequence[Sequence[str]], evaluation: Evaluation) -> Iterator[str]:
    """Yields a table, the meaning of its marks, and its evaluations' protocol."""
    text = markdown_table(table)
    yield text
    yield " ".join([f"Protocol: {base_vs_sft.protocol(evaluation)}.", *marked(text)])


def _averaged(comparisons: Sequence[AverageComparison]) -> Iterator[str]:
    """Yields a table and its protocol for each distinct settings of the averages' evaluations."""
    for _, same in groupby(comparisons, lambda c: c.protocol):
        alike = list(same)
        yield from _with_protocol(average_vs_members.headline(alike), alike[0].average)
