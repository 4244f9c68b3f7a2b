"""Mistakes on the command line: each is one line that names the help to read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from common.errors import UserError
from common.text import nearest

_MISSING = re.compile(r"the following arguments are required: (.+)")
_EXTRA = re.compile(r"unrecognized arguments: (.+)")


class Parser(argparse.ArgumentParser):
    """A parser that raises a UserError where argparse prints its usage and exits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raises UserError with argparse's message reworded."""
        if found := _MISSING.fullmatch(message):
            message = f"{found[1]} is missing"
        elif found := _EXTRA.fullmatch(message):
            message = f"unexpected argument {found[1]}"
        message = message.removeprefix("argument ")
        raise UserError(f"{message} ({self.prog} --help)")


def check_verb(words: Sequence[str], verbs: Collection[str], options: Collection[str]) -> None:
    """Raises UserError when the first word is neither a verb nor an option."""
    if not words:
        raise UserError(f"give a verb ({', '.join(verbs)}): warmstart --help")
    first = words[0]
    if first in options:
        return
    swapped = next((word for word in words[1:] if word in verbs), None)
    if first.startswith("-"):
        what, near = f"unknown option {first}", nearest(first, options)
    elif swapped:
        what, near = (
            f"unknown verb {first!r}",
            f": the verb comes first: warmstart {swapped} {first}",
        )
    else:
        what, near = f"unknown verb {first!r}", nearest(first, verbs)
    raise UserError(f"{what}{near or ': ' + ', '.join(verbs)} (warmstart --help)")


def check_options(
    verb: str, words: Sequence[str], known: Collection[str], valued: Collection[str]
) -> None:
    """Raises UserError when a verb's ``words`` contain an option that is not ``known``. The word
    after an option in ``valued`` is its value, and words after ``--`` are not options.
    """
    help_too = [*known, "-h", "--help"]
    for before, word in zip(["", *words], words, strict=False):
        if word == "--":
            return
        option = word.partition("=")[0]
        is_option = word.startswith("--") or re.match(r"-[A-Za-z]", word)
        if is_option and before not in valued and not _is_known(option, help_too, valued):
            near = nearest(option, [name for name in help_too if name.startswith("--")])
            if "." in option:
                near = f": write {word.lstrip('-')} without dashes"
            has = f"its options: {', '.join(known)}" if known else "it has none"
            raise UserError(f"{verb} has no option {option}{near} ({has}; warmstart {verb} --help)")


def _is_known(option: str, known: Collection[str], valued: Collection[str]) -> bool:
    """Returns whether argparse knows an option; a short one may be joined to its value: -N4."""
    return option in known or any(
        option.startswith(name) for name in valued if re.fullmatch("-[A-Za-z]", name)
    )
