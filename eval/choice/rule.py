"""The rule that recommends a checkpoint to start RL from.

Published results do not agree on what predicts RL's outcome, so the rule is a significance test
followed by a tie rule:

1. The criterion is pass@n, n the rollouts per problem: pass@k at large k predicts RL's outcome
   better than pass@1 (Kang et al., Quagmires in SFT-RL Post-Training, 2025, arXiv 2510.01624).
2. A candidate is dropped if its criterion is significantly worse than the best one's, in a test of
   all pairs at once (:mod:`eval.grading.simultaneous`).
3. The others do not differ significantly from the best. Among their steps of SFT, the tie rule
   takes the one with the lowest held-out loss (the same paper's other predictor), or the earliest
   step if not all of them have a held-out loss: overtrained checkpoints lose entropy and RL's gain
   (Aphale and Liu, SFT Overtraining Predicts Rank Inversion, 2026, arXiv 2606.18487). An average is
   taken only if no step is left, the one with the highest pass@n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from eval.grading.intervals import Sets
from eval.grading.simultaneous import AllPairs, Pair, all_pairs
from trainer.run.model_label import ModelLabel

HELD_OUT, EARLIEST, HIGHEST = "lowest held-out loss", "earliest step", "highest pass@n"
"""The tie rules, by which one of the candidates without a significant difference is chosen."""


class Choosable(Protocol):
    """A model that the rule can choose, of one run or of several replicates."""

    @property
    def label(self) -> ModelLabel:
        """The model's label."""

    @property
    def n(self) -> int:
        """Rollouts per problem."""

    @property
    def held_out(self) -> float | None:
        """The loss on the held-out rows; None if it was not measured."""

    @property
    def criterion(self) -> Sets:
        """pass@n of each problem, by set."""


C = TypeVar("C", bound=Choosable)


@dataclass(frozen=True)
class Choice(Generic[C]):
    """The rule's result for two or more candidates."""

    candidates: Sequence[C]
    tests: AllPairs
    """The tests of all pairs, by the criterion; candidates are numbered in their order here."""
    best: C
    """The highest pass@n that was observed; the first one if several are as high."""
    tied: Sequence[C]
    """The candidates that do not differ significantly from the best, including the best."""
    chosen: C
    decided_by: str
    """The tie rule that chose among the tied candidates, if there are several."""
    start: C | None
    """The step of SFT that ``warmstart rl`` takes: the chosen one, or if that is an average the
    rule's choice among the steps alone; None if no step was evaluated.
    """

    def behind(self, candidate: C) -> Pair:
        """Returns a candidate minus the best one."""
        order = self.candidates
        return self.tests.between(order.index(self.best), order.index(candidate))


def choose(candidates: Sequence[C], tests: AllPairs | None = None) -> Choice[C]:
    """Returns the choice among two or more candidates by the ``tests`` of their pairs; the default
    tests are for candidates of one run.
    """
    if tests is None:
        tests = all_pairs([c.criterion for c in candidates])
    best, tied = _tied(candidates, candidates, tests)
    chosen, by = _of_tie(tied)
    start: C | None = chosen
    if chosen.label.kind != "sft":
        steps = [c for c in candidates if c.label.kind == "sft"]
        start = _of_tie(_tied(steps, candidates, tests)[1])[0] if steps else None
    return Choice(candidates, tests, best, tied, chosen, by, start)


def _tied(some: Sequence[C], every: Sequence[C], tests: AllPairs) -> tuple[C, list[C]]:
    """Returns the best of ``some``, and those of them that do not differ significantly from it."""
    best = max(some, key=_criterion)
    return best, [
        c for c in some if c is best or not tests.between(every.index(best), every.index(c)).is_told
    ]


def _of_tie(tied: Sequence[C]) -> tuple[C, str]:
    """Returns the candidate that the tie rule takes, and the rule that decided."""
    steps = [c for c in tied if c.label.kind == "sft"]
    if not steps:
        return max(tied, key=_criterion), HIGHEST
    losses = [(c.held_out, c.label, c) for c in steps if c.held_out is not None]
    if len(losses) == len(steps):
        return min(losses)[2], HELD_OUT
    return min(steps, key=lambda c: c.label), EARLIEST


def _criterion(candidate: Choosable) -> float:
    return sum(map(sum, candidate.criterion))
