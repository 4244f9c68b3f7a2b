"""Rows that claim one id for different problems, or different answers for one problem.

A source may use one id for two problems. To drop one of them silently would be wrong, and so would
it be to refuse a source of 100,000 rows for it. So both get a new id, derived from the old one and
the problem's text; a rule that let one of them keep the old id would depend on the order of rows.
Ids without a clash stay as they are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from data_prep.rows.map_shard import Entry

SEVERAL_ANSWERS = "one problem, several answers"


def without_disputed(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Returns (entries whose problem has one answer, entries whose problem has several).

    Problems are equal if their texts are, ignoring headings, spacing and case; answers if their
    canonical spellings are. It is unknown which of several answers is right. Some may be the same
    answer in two spellings (0.5 and 1/2): these rows are dropped too, and counted.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    for e in entries:
        answers[e.fingerprint.text].add(e.fingerprint.answer)
    agreed: list[Entry] = []
    disputed: list[Entry] = []
    for e in entries:
        (agreed if len(answers[e.fingerprint.text]) == 1 else disputed).append(e)
    return agreed, sorted(disputed, key=lambda e: (e.fingerprint.rank, e.fingerprint.whole))


def told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the entries, with a new id for each that shares its id with another problem."""
    problems: dict[str, set[str]] = defaultdict(set)
    for e in entries:
        problems[e.id].add(e.fingerprint.text)
    return [e if len(problems[e.id]) == 1 else _renamed(e) for e in entries]


def _renamed(entry: Entry) -> Entry:
    both = f"{entry.id}\0{entry.fingerprint.text}"
    name = hashlib.sha256(both.encode()).hexdigest()[:16]
    rank = (*entry.fingerprint.rank[:2], name)
    return replace(entry, id=name, fingerprint=replace(entry.fingerprint, id=name, rank=rank))
