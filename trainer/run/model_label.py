"""Labels of a run's models: the base model, the exports of its steps, averages of these, and the
exports of RL steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import UserError
from common.text import nearest

_SFT = re.compile(r"(?:step_)?([0-9]+)")
_RL = re.compile(r"rl[-_]([0-9]+)(?:-([0-9a-f]{8}))?")
_AVERAGE = re.compile(r"avg[-_]([a-z0-9]+(?:[-_][a-z0-9]+)*)")
IN_FOLDERS = r"base|step_[0-9]+|avg(?:_[a-z0-9]+)+|rl_[0-9]+-[0-9a-f]{8}"
"""Pattern of a label in folder names. An average's name has no hyphen, so the hash after it begins
at the first one.
"""


@dataclass(frozen=True)
class ModelLabel:
    """Names a model of a run. The base model sorts first, then come the exports of its steps, then
    their averages, then the steps of each RL start.
    """

    step: int | None = None
    """Step of SFT; None for other models."""
    rl: int | None = None
    """Step of RL; None for other models."""
    start: str | None = None
    """The hash at the end of the RL start's folder; None in ``rl-N``, which
    ``trainer.run.rl_models`` completes.
    """
    average: str | None = None
    """Name of an average: lower-case letters, digits and single hyphens; None for other models."""

    @staticmethod
    def parse(text: str) -> ModelLabel:
        """Returns the label for ``base``, ``step_N`` or ``N``, ``avg-NAME`` or ``avg_NAME``,
        ``rl_N-HASH``, ``rl-N-HASH`` or ``rl-N``. Raises UserError for another text.
        """
        if text == str(BASE):
            return BASE
        if found := _SFT.fullmatch(text):
            return ModelLabel(int(found[1]))
        if found := _RL.fullmatch(text):
            return ModelLabel(rl=int(found[1]), start=found[2])
        if found := _AVERAGE.fullmatch(text):
            return ModelLabel(average=found[1].replace("_", "-"))
        raise UserError(
            f"{text!r} names no model of a run: give base, the number of a step, avg-NAME for an "
            f"average, or rl-N for step N of RL{nearest(text, [str(BASE)])}"
        )

    @property
    def word(self) -> str:
        """The label on a command line and in the job scripts' ledgers: ``base``, ``N``,
        ``avg-NAME`` or ``rl-N-HASH``.
        """
        if self.rl is not None:
            return f"rl-{self._rl}"
        if self.average is not None:
            return f"avg-{self.average}"
        return "base" if self.step is None else str(self.step)

    @property
    def kind(self) -> str:
        """How the model was made: ``base``, ``sft``, ``average`` or ``rl``."""
        if self.rl is not None:
            return "rl"
        if self.average is not None:
            return "average"
        return "base" if self.step is None else "sft"

    def __str__(self) -> str:
        """Returns the label in folder names, settings and tables: ``base``, ``step_N``,
        ``avg_NAME`` with underscores for hyphens, or ``rl_N-HASH``.
        """
        if self.rl is not None:
            return f"rl_{self._rl}"
        if self.average is not None:
            return f"avg_{self.average.replace('-', '_')}"
        return "base" if self.step is None else f"step_{self.step}"

    def __lt__(self, other: ModelLabel) -> bool:
        return self._order < other._order

    @property
    def _rl(self) -> str:
        return f"{self.rl}" if self.start is None else f"{self.rl}-{self.start}"

    @property
    def _order(self) -> tuple[int, int, str, int]:
        if self.rl is not None:
            return 3, 0, self.start or "", self.rl
        if self.average is not None:
            return 2, 0, self.average, 0
        return (0, 0, "", 0) if self.step is None else (1, self.step, "", 0)


BASE = ModelLabel()
