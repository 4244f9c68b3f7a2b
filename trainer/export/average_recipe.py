"""The recipe of an average: steps of SFT with their weights, and a share of the base model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from common.errors import UserError
from common.files import sha256_json
from trainer.run.model_label import ModelLabel

LONGEST = 60
"""Maximum length of a name, in characters; folder names contain it together with a hash and a
suite.
"""
_MEMBER = re.compile(r"([0-9]{1,9})(?::(-?[0-9]{1,6}(?:\.[0-9]{1,6})?))?")
_SHARE = re.compile(r"base=([0-9]?\.[0-9]{1,4}|[0-9])")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_TAKEN = re.compile(r"[0-9]+|base|(?:rl|step)(?:-.*)?")


@dataclass(frozen=True)
class AverageRecipe:
    """A weighted mean of steps, moved towards the base model by a share."""

    weights: tuple[tuple[int, Fraction], ...]
    """(step, its weight in the mean), by step; the weights add up to 1."""
    base: Fraction = Fraction(0)
    """Share of the base model in the result."""

    @staticmethod
    def parse(members: str, toward: str | None, there: Sequence[int]) -> AverageRecipe:
        """Returns the recipe of ``members`` (``704,1056`` or ``704:1,1056:2``) and ``toward``
        (``base=0.3``); ``there`` are the steps that the run has.

        Raises UserError when one of them has another form, a step does not exist or is given twice,
        a weight is 0 or is given for only some steps, the share is not between 0 and 1, or the
        recipe is a single step that is not moved.
        """
        known = f"(available: {', '.join(map(str, there)) or 'none'})"
        found = [_MEMBER.fullmatch(word.strip()) for word in members.split(",")]
        if None in found:
            raise UserError(
                f"--average {members}: give steps as in 704,1056 or, with weights, 704:1,1056:2 "
                f"{known}"
            )
        pairs = [(int(m[1]), m[2]) for m in found if m]
        steps, given = [step for step, _ in pairs], [weight for _, weight in pairs if weight]
        if strange := [step for step in steps if step not in there]:
            raise UserError(f"there is no checkpoint and no export of step {strange[0]} {known}")
        if twice := [step for step in steps if steps.count(step) > 1]:
            raise UserError(f"--average {members}: step {twice[0]} is given twice {known}")
        if given and len(given) < len(steps):
            raise UserError(f"--average {members}: give every step a weight, or none {known}")
        if any(Fraction(weight) <= 0 for weight in given):
            raise UserError(f"--average {members}: a weight must be greater than 0 {known}")
        if len(steps) < 2 and toward is None:
            raise UserError(
                f"--average {members}: an average needs two steps, or one and --toward base=SHARE "
                f"{known}"
            )
        total = sum((Fraction(weight or 1) for _, weight in pairs), Fraction(0))
        parts = sorted((step, Fraction(weight or 1) / total) for step, weight in pairs)
        return AverageRecipe(tuple(parts), _share(toward))

    @property
    def steps(self) -> list[int]:
        """The steps, ascending."""
        return [step for step, _ in self.weights]

    @property
    def name(self) -> str:
        """The default name: the steps, a hash of the weights unless they are equal, ``baseN`` for N
        percent of the base model. A long name has the number of steps and a hash of the recipe
        instead.
        """
        parts = [str(step) for step in self.steps]
        if len({part for _, part in self.weights}) > 1:
            parts.append(f"w{sha256_json(self.to_json()['members'])[:8]}")
        if self.base:
            parts.append(f"base{float(self.base * 100):g}".replace(".", "p"))
        name = "-".join(parts)
        if len(name) > LONGEST:
            name = f"{len(self.steps)}-steps-{sha256_json(self.to_json())[:8]}"
        return name

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as the export's manifest has it; fractions are written exactly, as
        text.
        """
        return {
            "members": [{"step": step, "weight": str(part)} for step, part in self.weights],
            "base": str(self.base),
        }


def label_of(recipe: AverageRecipe, name: str | None) -> ModelLabel:
    """Returns the label of an average with this name, by default the recipe's. Raises UserError
    when the name is not allowed.
    """
    if name is None:
        return ModelLabel(average=recipe.name)
    plain = name.removeprefix("avg-")
    if not _NAME.fullmatch(plain) or _TAKEN.fullmatch(plain) or len(plain) > LONGEST:
        raise UserError(
            f"--name {name}: give at most {LONGEST} lower-case letters, digits and single hyphens, "
            "not a number, base, rl-N or step-N"
        )
    return ModelLabel(average=plain)


def _share(toward: str | None) -> Fraction:
    if toward is None:
        return Fraction(0)
    found = _SHARE.fullmatch(toward)
    share = Fraction(found[1]) if found else Fraction(0)
    if not 0 < share < 1:
        raise UserError(
            f"--toward {toward}: give base=SHARE, a number between 0 and 1 with at most four "
            "decimals, such as base=0.3"
        )
    return share
