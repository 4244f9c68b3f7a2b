"""Makes the commands in messages name the recipe as the user typed it, with its overrides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import Mistakes, UserError, refuse


@contextmanager
def called(recipe: str, overrides: Sequence[str], name: str) -> Iterator[None]:
    """Within the block, replaces the recipe's ``name`` by the typed word and overrides in the
    commands of an error's message.
    """
    try:
        yield
    except UserError as e:
        again = shlex.join([recipe, *overrides])
        faults = e.faults if isinstance(e, Mistakes) else [str(e)]
        told = [with_words(fault, name, again) for fault in faults]
        if told == faults:
            raise
        refuse(told)


def with_words(text: str, name: str, again: str) -> str:
    """Returns ``text`` with ``again``, a recipe and its overrides, in place of the recipe's bare
    name in its commands.
    """
    bare = re.compile(rf"(?<=warmstart )(\w+) {re.escape(name)}(?![\w=./-])")
    return bare.sub(lambda match: f"{match[1]} {again}", text)
