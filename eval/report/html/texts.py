"""Prepares the rollouts' texts for the page: cuts them to fit, converts formulas, and packs them
per problem.

A packed problem is two pieces of deflated JSON in base64, with a full stop between them: its texts,
which the page inflates to search them or to show a rollout, and its formulas' MathML.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common.records import THINK_CLOSE, THINK_OPEN, Grade, Problem, Rollout
from eval.report.html import maths
from eval.report.html.maths import Formula

BYTES = 24_000_000
"""Maximum bytes of all packed problems together."""
LONGEST = 20_000
"""Maximum numbers of characters kept of a problem, of a rollout's thinking and of its answer; the
latter two are reduced if the page would exceed ``BYTES``.
"""
HEAD = 0.6
"""Share of a cut text's kept characters that come from its beginning; the rest come from
its end.
"""
ANSWER = 400
"""Maximum number of characters kept of a gold or extracted answer."""

Piece = str | Formula | dict[str, int]
"""Plain text, a formula, or ``{"cut": n}`` in the place of n characters."""
Encode = Callable[[Iterable[Piece]], Any]


@dataclass(frozen=True)
class Sheet:
    """One problem with its rollouts and their grades, in the order of k; None for a missing one."""

    problem: Problem
    rollouts: Sequence[tuple[Rollout, Grade] | None]


def pack(sheets: Sequence[Sheet], room: int = BYTES) -> list[str]:
    """Returns the packed sheets, in order; cuts the rollouts' texts until all sheets fit into
    ``room`` bytes, or nothing of those texts is left.
    """
    limit = LONGEST
    trees = maths.convert(f for sheet in sheets for f in _formulas(sheet, limit))
    while True:
        packed = [_pack(sheet, limit, trees) for sheet in sheets]
        size = sum(map(len, packed))
        if size <= room or limit == 0:
            return packed
        limit = int(limit * 0.95 * room / size)


def parts(text: str) -> tuple[str | None, str | None]:
    """Returns the thinking and the answer of a rollout, without the think tags; None for a missing
    one.
    """
    thought, closed, answer = text.rpartition(THINK_CLOSE)
    if not closed and THINK_OPEN not in text:
        return None, text.strip()
    thought = thought if closed else text
    return thought.strip().removeprefix(THINK_OPEN).strip(), answer.strip() if closed else None


def cut(text: str, limit: int) -> Iterator[Piece]:
    """Yields a text's pieces; for one longer than ``limit`` characters only head and tail, with a
    cut between them.
    """
    if len(text) <= limit:
        yield from maths.split(text)
        return
    head = int(limit * HEAD)
    yield from maths.split(text[:head])
    yield {"cut": len(text) - limit}
    yield from maths.split(text[len(text) - limit + head :])


def answer(text: str) -> Iterator[Piece]:
    """Yields the pieces of a gold or extracted answer. An answer with a LaTeX command, subscript or
    superscript and no leading ``$`` is one formula; a long one is cut and stays text.
    """
    if len(text) > ANSWER:
        head = int(ANSWER * HEAD)
        yield from (text[:head], {"cut": len(text) - ANSWER}, text[len(text) - ANSWER + head :])
    elif any(c in text for c in "\\^_") and not text.strip().startswith("$"):
        yield text, ""
    else:
        yield from maths.split(text)


def _formulas(sheet: Sheet, limit: int) -> list[Formula]:
    found: list[Formula] = []
    _content(sheet, limit, lambda pieces: found.extend(p for p in pieces if isinstance(p, tuple)))
    return found


def _pack(sheet: Sheet, limit: int, trees: dict[Formula, Any]) -> str:
    """Returns the packed sheet. Its pieces are texts, cuts, or indices of formulas: into
    ``sources``, which is searched, and into the list of MathML.
    """
    used: dict[Formula, int] = {}

    def encode(pieces: Iterable[Piece]) -> list[Any]:
        encoded: list[Any] = []
        for piece in pieces:
            if not isinstance(piece, tuple):
                encoded.append(piece)
            elif piece in trees:
                encoded.append(used.setdefault(piece, len(used)))
            else:
                encoded.append(maths.source(piece))
        return encoded

    content = _content(sheet, limit, encode) | {"sources": [maths.source(f) for f in used]}
    return f"{_deflated(content)}.{_deflated([trees[f] for f in used])}"


def _deflated(value: Any) -> str:
    return base64.b64encode(
        zlib.compress(json.dumps(value, separators=(",", ":")).encode())
    ).decode()


def _content(sheet: Sheet, limit: int, encode: Encode) -> dict[str, Any]:
    return {
        "problem": encode(cut(sheet.problem.problem, LONGEST)),
        "gold": encode(answer(sheet.problem.answer)),
        "rollouts": [pair and _rollout(*pair, limit, encode) for pair in sheet.rollouts],
    }


def _rollout(rollout: Rollout, grade: Grade, limit: int, encode: Encode) -> dict[str, Any]:
    thought, shown = parts(rollout.text)
    return {
        "thinking": None if thought is None else encode(cut(thought, limit)),
        "answer": None if shown is None else encode(cut(shown, limit)),
        "extracted": None if grade.extracted is None else encode(answer(grade.extracted)),
        "raw": grade.extracted and grade.extracted[:ANSWER],
        "characters": len(rollout.text),
        "state": grade.state,
        "verified": grade.verified,
        "tokens": rollout.tokens,
        "finish": rollout.finish_reason,
        "seed": rollout.seed,
        "engine": rollout.engine,
        "seconds": rollout.seconds,
    }
