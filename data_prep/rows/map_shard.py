"""A worker's job on one unit of the source: choose traces, filter, encode, audit, write.

Rows stay on disk. Only a short entry per row goes back to the parent, which makes the decisions
that need every row.
"""

from __future__ import annotations

import functools
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from common.files import sha256_json
from common.records import ROW, Row, Tokens
from common.seeded_order import seeded_key
from data_prep.duplicates import minhash
from data_prep.duplicates.benchmark_index import Candidate, Index
from data_prep.rows import filters, label_audit
from data_prep.rows.dropped import EXCERPT, Dropped, head, tail
from data_prep.rows.parse import (
    RECORD_DROPS,
    TRACE_DROPS,
    columns_read,
    from_columns,
    from_openr1,
    generated,
    question_type_allowed,
)
from data_prep.source.shards import BadRecord, Unit
from data_prep.synth import check_arithmetic, check_problem
from data_prep.tokenizer import chat, token_files, tokenizers
from data_prep.tokenizer.prompt import PROBLEM, Prompt, all_turns

SAMPLES = 10
"""Dropped rows kept for the report, per reason."""
ENCODED_TOGETHER = 16
"""Rows per tokenizer call. It encodes a batch in a separate thread, where memory allocation takes
half as long as next to all of Python's objects.
"""


PART = (*ROW, *token_files.COLUMNS[1:])
"""Columns of a part file, which a worker writes: a row and its tokens."""


@dataclass(frozen=True)
class RowSettings:
    """The settings of all decisions on single rows."""

    columns: dict[str, str] | None
    clean: str | None
    verifier: str
    trace_choice: str
    question_types: tuple[str, ...] | None
    max_chars: int
    max_length: int
    min_think_tokens: int
    seed: int
    answer_style: str = "boxed"
    """``boxed`` or ``answer_is``."""
    filters: str = "standard"
    """``standard``; or ``synthetic``, which adds the checks of generated problems
    (``data_prep.synth``).
    """
    prompt: str = PROBLEM
    """Text of the user's turn, with ``{problem}``."""
    system: str | None = None
    """The system turn of rows without one of their own."""

    @property
    def asked(self) -> Prompt:
        """How a row's problem is asked."""
        return Prompt(self.prompt, self.system)


@dataclass(frozen=True, slots=True)
class Entry:
    """One kept row, as reported to the parent."""

    id: str
    source: str
    chars: int
    length: int
    part: int
    position: int
    """Index of the row in its part file."""
    fingerprint: minhash.Fingerprint
    candidates: tuple[Candidate, ...]


@dataclass
class Mapped:
    """The result of mapping one unit, or several results merged."""

    records: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[bytes, str]]] = field(default_factory=dict)
    """Reason -> (hash, excerpt) of the SAMPLES dropped rows with the smallest hash."""
    bad: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    operations: dict[str, int] = field(default_factory=dict)
    """Hash of a whole row -> ``<<...>>`` annotations of its source's solution, in the style
    answer_is.
    """

    def drop(self, reason: str, row: Row | None, seed: int, excerpt: str) -> None:
        """Counts a dropped record and keeps it as a sample if its hash is among the smallest of its
        reason.
        """
        self.drops[reason] += 1
        name = row.id if row else sha256_json(excerpt)
        kept = self.samples.setdefault(reason, [])
        # A record may be dropped before its text is checked, and a lone surrogate cannot be
        # written.
        kept.append((seeded_key(seed, name), excerpt[:EXCERPT].encode(errors="replace").decode()))
        self.samples[reason] = heapq.nsmallest(SAMPLES, kept)

    def merge(self, other: Mapped) -> None:
        """Adds another unit's result. The order of merging does not affect later decisions."""
        self.records += other.records
        self.drops += other.drops
        for reason, kept in other.samples.items():
            self.samples[reason] = heapq.nsmallest(SAMPLES, [*self.samples.get(reason, []), *kept])
        self.bad += other.bad
        self.entries += other.entries
        for whole, count in other.operations.items():
            self._count_operations(whole, count)

    def _count_operations(self, whole: str, count: int) -> None:
        # The larger one of equal rows, so that their order does not matter.
        self.operations[whole] = max(count, self.operations.get(whole, 0))

    def note_operations(self, row: Row, solution: object) -> None:
        """Counts the annotations in a row's solution as the source wrote it."""
        count = len(check_arithmetic.ANNOTATION.findall(str(solution)))
        self._count_operations(sha256_json(vars(row)), count)


def reasons(settings: RowSettings) -> list[str]:
    """Returns every reason for which a single row can be dropped, in the order checked."""
    single = check_problem.REASONS if settings.filters == "synthetic" else ()
    texts = [check.name for check in filters.standard(settings.max_chars, settings.answer_style)]
    return [
        *RECORD_DROPS,
        *TRACE_DROPS,
        *single,
        *texts,
        _too_long(settings),
        _too_thoughtless(settings),
    ]


def _too_long(settings: RowSettings) -> str:
    return f"over {settings.max_length} tokens"


def _too_thoughtless(settings: RowSettings) -> str:
    return f"under {settings.min_think_tokens} tokens of thinking"


def text_rows(unit: Unit, settings: RowSettings, result: Mapped) -> Iterator[Row]:
    """Yields the unit's rows that pass every check of their text; the rest is counted in
    ``result``.
    """
    assert settings.columns is not None or settings.filters == "standard"
    text_checks = filters.standard(settings.max_chars, settings.answer_style)
    columns = settings.columns or {"problem": "problem"}
    shown = columns.get("problem") or columns["messages"]
    for record in unit.records(
        columns_read(settings.columns, settings.verifier, settings.question_types)
    ):
        result.records += 1
        if isinstance(record, BadRecord):
            result.bad.append(str(record))
            continue
        try:
            if not question_type_allowed(record, settings.question_types):
                kind, text = record.values["question_type"], record.values.get(shown)
                raise Dropped("question type", head(f"{kind}: {text}"))
            if settings.columns is None:
                row = from_openr1(record, settings.verifier, settings.trace_choice, settings.seed)
            else:
                if settings.filters == "synthetic":
                    problem, solution, answer = generated(record, settings.columns)
                    if fault := check_problem.fault(problem, solution, answer):
                        parts = head(problem, EXCERPT // 2), tail(solution, EXCERPT // 2 - 3)
                        raise Dropped(fault, " / ".join(parts))
                row = from_columns(record, settings.columns, settings.clean, settings.answer_style)
                if settings.answer_style == "answer_is" and "solution" in columns:
                    result.note_operations(row, record.values[columns["solution"]])
        except Dropped as reason:
            excerpt = reason.shown or str(record.values.get(shown))
            result.drop(str(reason), None, settings.seed, excerpt)
            continue
        except BadRecord as e:
            result.bad.append(str(e))
            continue
        faults = ((check.name, check.fault(row)) for check in text_checks)
        name, fault = next((found for found in faults if found[1] is not None), ("", None))
        if fault is None:
            yield row
        else:
            result.drop(name, row, settings.seed, fault)


def map_unit(
    numbered: tuple[int, Unit], settings: RowSettings, tokenizer: Path, index: Path, parts: Path
) -> Mapped:
    """Maps one (number, unit): writes its kept rows to ``parts``; returns their entries and the
    counts of dropped records.

    Raises UserError when a file cannot be read, ValueError when the label audit finds a fault.
    """
    part, unit = numbered
    encoder, auditor, benchmarks = _worker(tokenizer, index, settings.answer_style, settings.asked)
    result = Mapped()

    def kept() -> Iterator[dict[str, Any]]:
        rows = text_rows(unit, settings, result)
        for row, encoded in _encoded(encoder, rows, settings.asked):
            if encoded.length > settings.max_length:
                longer = max(row.problem, row.solution, key=len)
                result.drop(_too_long(settings), row, settings.seed, tail(longer))
                continue
            auditor.check(row, encoded)
            if auditor.thought(encoded) < settings.min_think_tokens:
                result.drop(_too_thoughtless(settings), row, settings.seed, head(row.solution))
                continue
            result.entries.append(
                _entry(row, encoded.length, part, len(result.entries), benchmarks)
            )
            yield vars(row) | vars(encoded)

    token_files.write_table(parts / f"{part}.arrow", kept(), token_files.schema_of(PART))
    return result


def _encoded(encoder: Any, rows: Iterator[Row], prompt: Prompt) -> Iterator[tuple[Row, Tokens]]:
    while batch := list(islice(rows, ENCODED_TOGETHER)):
        yield from zip(batch, chat.encode(encoder, batch, prompt), strict=True)


def _entry(row: Row, length: int, part: int, position: int, benchmarks: Index) -> Entry:
    rank, asked = (length, len(row.solution), row.id), all_turns(row)
    fingerprint = minhash.fingerprint(row.id, asked, row.answer, sha256_json(vars(row)), rank)
    candidates = benchmarks.candidates(asked)
    return Entry(
        row.id, row.source, len(row.solution), length, part, position, fingerprint, candidates
    )


@functools.lru_cache(maxsize=1)
def _worker(
    tokenizer: Path, index: Path, answer_style: str, prompt: Prompt
) -> tuple[Any, label_audit.Auditor, Index]:
    """Returns the tokenizer, the auditor and the benchmark index, loaded once per process."""
    from data_prep.benchmarks import sets

    encoder = tokenizers.encoder(tokenizer)
    return (
        encoder,
        label_audit.Auditor(encoder, answer_style, prompt),
        Index.build(sets.read_problems(index)),
    )
