"""Labels of a run's models: the base model and the exports of its steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import UserError


@dataclass(frozen=True)
class ModelLabel:
    """Names a model of a run: its base model, which sorts first, or the export of a step."""

    step: int | None = None
    """None for the base model."""

    @staticmethod
    def parse(text: str) -> ModelLabel:
        """Returns the label for ``base``, ``step_N`` or ``N``. Raises UserError for another
        text.
        """
        if text == str(BASE):
            return BASE
        found = re.fullmatch(r"(?:step_)?([0-9]+)", text)
        if found is None:
            raise UserError(f"{text!r} names no model of a run: give base or the number of a step")
        return ModelLabel(int(found[1]))

    @property
    def word(self) -> str:
        """The label on a command line and in the notes of jobs: ``base`` or ``N``."""
        return "base" if self.step is None else str(self.step)

    def __str__(self) -> str:
        """Returns the label in folder names, settings and tables: ``base`` or ``step_N``."""
        return "base" if self.step is None else f"step_{self.step}"

    def __lt__(self, other: ModelLabel) -> bool:
        return other.step is not None and (self.step is None or self.step < other.step)


BASE = ModelLabel()
