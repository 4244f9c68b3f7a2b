"""Writes a dataset's report.md: funnel, sources, lengths, and samples of kept and dropped rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.files import write_text
from common.plots import Histogram, histogram
from common.records import row_of
from common.text import fenced, markdown_table, shortened
from data_prep.output import number_facts
from data_prep.output.clashes import SEVERAL_ANSWERS
from data_prep.output.folder import REPORT
from data_prep.output.select import Chosen
from data_prep.output.write import ROWS, gather
from data_prep.rows.map_shard import SAMPLES, Entry, Mapped
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import Prompt

SHOWN = 1_500
"""Maximum number of characters shown of a sampled row."""


def write(
    target: Path,
    name: str,
    parts: Path,
    total: Mapped,
    chosen: Chosen,
    prompt: Prompt,
    numbers: dict[str, Any] | None = None,
) -> None:
    """Writes report.md and its plots into ``target``, whose rows are already written; ``parts`` has
    all part files, ``numbers`` the facts of ``number_facts``.
    """
    entries = [e for rows in chosen.splits.values() for e in rows]
    chars, tokens = [e.chars for e in entries], [e.length for e in entries]
    solutions = Histogram(chars, "training", max(chars))
    rows = Histogram(tokens, "training", max(tokens))
    histogram(target / "chars.png", {"solutions": solutions}, "characters")
    histogram(target / "tokens.png", {"rows": rows}, "tokens")
    sections = [f"# Dataset {name}", "## Funnel", _table(("step", "rows"), chosen.funnel.items())]
    sections += ["## Sources", _sources(total.entries, entries)]
    sections += [
        "## Lengths",
        _lengths(entries),
        "![characters](chars.png)",
        "![tokens](tokens.png)",
    ]
    if numbers is not None:
        sections += ["## Numbers", number_facts.table(numbers)]
    if chosen.contaminated:
        sections += ["## In a benchmark", _contaminated(chosen)]
    sections += ["## Sample rows", *_rows(target, chosen, prompt)]
    for reason, texts in _drops(parts, total, chosen).items():
        sections.append(f"## Dropped: {reason} ({chosen.funnel[f'dropped: {reason}']:,})")
        sections.append("\n".join(f"- {text}" for text in texts))
    write_text(target / REPORT, "\n\n".join(sections) + "\n")


def _drops(parts: Path, total: Mapped, chosen: Chosen) -> dict[str, list[str]]:
    """Returns reason -> samples of the rows dropped for it, in the funnel's order."""
    samples = {"malformed": [_quote(text) for text in total.bad[:SAMPLES]]}
    samples |= {
        reason: [_quote(text) for _, text in kept] for reason, kept in total.samples.items()
    }
    stayed = {
        row: f", a duplicate of row {best}"
        for best, rows in chosen.duplicates.items()
        for row in rows
    }
    for reason, entries in chosen.dropped.items():
        texts = (
            (f"answer {answer}: " if reason == SEVERAL_ANSWERS else "") + problem
            for table in gather(parts, entries)
            for problem, answer in zip(
                *(table.column(name).to_pylist() for name in ("problem", "answer")), strict=True
            )
        )
        samples[reason] = [
            f"row {e.id}{stayed.get(e.id, '')}: {_quote(text)}"
            for e, text in zip(entries, texts, strict=True)
        ]
    order = [step.removeprefix("dropped: ") for step in chosen.funnel]
    return {reason: samples[reason] for reason in order if samples.get(reason)}


def _table(titles: Sequence[str], rows: Any) -> str:
    shown = [(first, *(f"{value:,}" for value in rest)) for first, *rest in rows if any(rest)]
    return markdown_table([titles, *shown])


def _sources(before: Sequence[Entry], after: Sequence[Entry]) -> str:
    passed, kept = (Counter(e.source for e in entries) for entries in (before, after))
    rows = [(source, count, kept[source]) for source, count in sorted(passed.items())]
    return _table(("source", "passed the row filters", "in the dataset"), rows)


def _lengths(entries: Sequence[Entry]) -> str:
    rows = []
    for unit, lengths in (
        ("characters", [e.chars for e in entries]),
        ("tokens", [e.length for e in entries]),
    ):
        ordered = sorted(lengths)
        percentiles = (
            ordered[min(len(ordered) - 1, len(ordered) * q // 100)] for q in (10, 50, 90, 99)
        )
        rows.append((unit, *percentiles, ordered[-1]))
    return _table(("", "10 %", "median", "90 %", "99 %", "longest"), rows)


def _contaminated(chosen: Chosen) -> str:
    rows = (
        (
            row,
            f"{found['set']}/{_quote(found['id'])}",
            found["kind"],
            f"{found['coverage']:.0%}",
            _quote(found["overlap"]),
        )
        for row, found in chosen.contaminated.items()
    )
    return markdown_table([("row", "benchmark item", "match", "share", "overlap"), *rows], "lllrl")


def _rows(target: Path, chosen: Chosen, prompt: Prompt) -> Iterator[str]:
    import pyarrow.parquet as pq

    first = next(pq.ParquetFile(target / ROWS).iter_batches(batch_size=SAMPLES)).to_pylist()
    lengths = {e.id: e.length for e in chosen.splits["train"][:SAMPLES]}
    for row in first:
        text = fenced(shortened(chat.render(row_of(row), prompt), SHOWN))
        yield f"Row {row['id']}, {lengths.get(row['id'], 0):,} tokens:\n\n{text}"


def _quote(text: str) -> str:
    """Returns text as inline code: one line of at most 300 characters, without backticks."""
    return "`" + " ".join(text.replace("`", "'").split())[:300] + "`"
