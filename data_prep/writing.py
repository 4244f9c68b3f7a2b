"""The dataset's files: rows.parquet, tokens, held-out problems, and the report that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from data_prep import chat, tokens
from data_prep.files import write_jsonl, write_text
from data_prep.mapping import SAMPLES, Entry, Mapped
from data_prep.plots import histogram
from data_prep.schema import Row
from data_prep.selection import Chosen

COLUMNS = [f.name for f in fields(Row)]
SHOWN = 1_500
"""Characters of a sampled row that the report shows."""


def write(target: Path, parts: Path, chosen: Chosen) -> None:
    """Gathers the chosen rows from the workers' files into the dataset's, a batch at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.int32() if name == "trace" else pa.string()) for name in (*COLUMNS, "split")])
    with pq.ParquetWriter(target / "rows.parquet", schema) as rows:
        for split, entries in chosen.splits.items():
            with tokens.writer(target / "tokens" / f"{split}.arrow", tokens.COLUMNS) as encoded:
                for table in _gather(parts, entries):
                    labelled = table.select(COLUMNS).append_column("split", pa.array([split] * table.num_rows))
                    rows.write_table(labelled)
                    encoded.write_table(table.select(list(tokens.COLUMNS)).combine_chunks())
    problems = (
        {"id": row["id"], "problem": row["problem"], "answer": row["answer"]}
        for table in _gather(parts, chosen.splits["test"])
        for row in table.select(COLUMNS).to_pylist()
    )
    write_jsonl(target / "heldout.jsonl", problems)


def report(target: Path, name: str, total: Mapped, chosen: Chosen) -> None:
    """Writes report.md (funnel, source mix, lengths, samples of what stayed and of what was dropped), with pictures."""
    entries = [e for rows in chosen.splits.values() for e in rows]
    histogram(target / "chars.png", {"solutions": [e.chars for e in entries]}, "characters")
    histogram(target / "tokens.png", {"rows": [e.length for e in entries]}, "tokens")
    sections = [f"# Dataset {name}", "## Funnel", _table(("step", "rows"), chosen.funnel.items())]
    sections += ["## Sources", _sources(total.entries, entries)]
    sections += ["## Lengths", _lengths(entries), "![characters](chars.png)", "![tokens](tokens.png)"]
    if chosen.contaminated:
        sections += ["## In a benchmark", _contaminated(chosen)]
    sections += ["## Ten rows", *_rows(target, chosen)]
    for reason, samples in sorted(total.samples.items()):
        quoted = [f"- {_quote(text)}" for _, text in samples]
        sections += [f"## Dropped: {reason} ({total.drops[reason]:,})", "\n".join(quoted)]
    write_text(target / "report.md", "\n\n".join(sections) + "\n")


def _gather(parts: Path, entries: Sequence[Entry]) -> Iterator[Any]:
    """Tables of ``tokens.BATCH`` rows in the order of ``entries``, from memory-mapped part files."""
    import pyarrow as pa

    for start in range(0, len(entries), tokens.BATCH):
        # Opened anew for each batch, so that what has been read does not stay mapped.
        opened: dict[int, Any] = {}
        slices = []
        for e in entries[start : start + tokens.BATCH]:
            if e.part not in opened:
                opened[e.part] = tokens.read(parts / f"{e.part}.arrow")
            slices.append(opened[e.part].slice(e.position, 1))
        yield pa.concat_tables(slices)


def _table(titles: Sequence[str], rows: Any) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    for first, *rest in rows:
        if any(rest):
            lines.append(f"| {first} | " + " | ".join(f"{value:,}" for value in rest) + " |")
    return "\n".join(lines)


def _sources(before: Sequence[Entry], after: Sequence[Entry]) -> str:
    passed, kept = (Counter(e.source for e in entries) for entries in (before, after))
    rows = [(source, count, kept[source]) for source, count in sorted(passed.items())]
    return _table(("source", "passed the row filters", "in the dataset"), rows)


def _lengths(entries: Sequence[Entry]) -> str:
    rows = []
    for unit, lengths in (("characters", [e.chars for e in entries]), ("tokens", [e.length for e in entries])):
        ordered = sorted(lengths)
        percentiles = (ordered[min(len(ordered) - 1, len(ordered) * q // 100)] for q in (10, 50, 90, 99))
        rows.append((unit, *percentiles, ordered[-1]))
    return _table(("", "10 %", "median", "90 %", "99 %", "longest"), rows)


def _contaminated(chosen: Chosen) -> str:
    lines = ["| row | benchmark item | how | share | overlap |", "|---|---|---|---:|---|"]
    for row, found in chosen.contaminated.items():
        overlap = _quote(found["overlap"])
        lines.append(
            f"| {row} | {found['set']}/{found['id']} | {found['kind']} | {found['coverage']:.0%} | {overlap} |"
        )
    return "\n".join(lines)


def _rows(target: Path, chosen: Chosen) -> Iterator[str]:
    import pyarrow.parquet as pq

    first = next(pq.ParquetFile(target / "rows.parquet").iter_batches(batch_size=SAMPLES)).to_pylist()
    lengths = {e.id: e.length for e in chosen.splits["train"][:SAMPLES]}
    for row in first:
        text = chat.render(row["problem"], row["solution"])
        cut = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}\n[...]\n{text[-SHOWN // 2 :]}"
        fence = "`" * 5
        yield f"Row {row['id']}, {lengths.get(row['id'], 0):,} tokens:\n\n{fence}\n{cut}\n{fence}"


def _quote(text: str) -> str:
    """Text on one line of a table or list, nothing in it markup."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "¦").split())[:300] + "`"
