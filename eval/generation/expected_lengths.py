"""Expected lengths of rollouts, by problem: from those of this evaluation so far, and from a prior,
the mean lengths of another checkpoint's rollouts.

Lengths count as exponential, those of running rollouts as censored, so a mean's maximum-likelihood
estimate is all tokens so far over the number of ended rollouts (Lawless, Statistical Models and
Methods for Lifetime Data, 2003, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ProblemKey = tuple[str, str]
"""(set, problem id)"""
RATIO_WEIGHT = 16
"""Ended rollouts that count for a ratio of 1 between this evaluation's lengths and the prior's: the
ratio's logarithm then has a standard deviation of 1/4 beforehand.
"""


@dataclass
class _Lengths:
    """How many rollouts ended, and the tokens of all so far, or these in another unit."""

    ended: int = 0
    tokens: float = 0

    def count(self, tokens: float, ended: bool) -> None:
        self.tokens += tokens
        self.ended += ended


class ExpectedLengths:
    """Counts rollouts of ``problems`` and says how long others of them will be."""

    def __init__(
        self, problems: Iterable[ProblemKey], budget: int, prior: Mapping[ProblemKey, float]
    ) -> None:
        """``prior`` has the expected tokens of some problems' rollouts, up to a factor that all
        have in common; ``budget`` is the most tokens of a rollout.
        """
        self._budget = budget
        self._all, self._relative = _Lengths(), _Lengths()
        self._of = {problem: _Lengths() for problem in problems}
        self._prior = {problem: max(1.0, prior[problem]) for problem in self._of.keys() & prior}

    def count(self, problem: ProblemKey, tokens: int, ended: bool = False) -> None:
        """Adds ``tokens`` to those of a problem's rollouts; ``ended``: one of them ended."""
        self._all.count(tokens, ended)
        self._of[problem].count(tokens, ended)
        if problem in self._prior:
            self._relative.count(tokens / self._prior[problem], ended)

    def is_known(self, problem: ProblemKey) -> bool:
        """Returns whether the prior has the problem."""
        return problem in self._prior

    @property
    def by_problem(self) -> dict[ProblemKey, float]:
        """Expected tokens of one more rollout.

        Beside a problem's own rollouts, its prior counts as one that ended, multiplied by the ratio
        of this evaluation's lengths to the prior's. Without a prior, the mean of all problems does;
        before any rollout, that is the budget.
        """
        mean = min(self._budget, (self._budget + self._all.tokens) / (1 + self._all.ended))
        ratio = (RATIO_WEIGHT + self._relative.tokens) / (RATIO_WEIGHT + self._relative.ended)
        expected = {}
        for problem, own in self._of.items():
            known = self._prior.get(problem)
            before = mean if known is None else min(self._budget, ratio * known)
            expected[problem] = min(self._budget, (before + own.tokens) / (1 + own.ended))
        return expected
