"""The data stage: source records -> rows -> tokens -> manifest, as one folder that is whole or absent."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep import chat, filters, provenance, tokens, vocabulary
from data_prep.files import (
    MANIFEST,
    read_json,
    sha256_file,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
    writer,
)
from data_prep.rows import Dropped, from_columns, from_openr1
from data_prep.schema import Row, Tokens
from data_prep.sources import Source


@dataclass(frozen=True)
class Settings:
    """Everything that decides a dataset's content."""

    source: Source
    columns: dict[str, str] | None
    clean: str | None
    verifier: str
    tokenizer: str
    """model, qwen3 or trained."""
    model: str
    """Base model whose tokenizer ``model`` stands for."""
    model_revision: str | None
    max_chars: int
    max_length: int
    train_rows: int | None
    test_rows: int
    seed: int

    def identity(self) -> dict[str, Any]:
        """The settings as the manifest records them."""
        values = asdict(self)
        values["source"] = self.source.fingerprint()
        if self.tokenizer != "model":
            del values["model"], values["model_revision"]
        return values | {"template": chat.template_hash()}


def build(folder: Path, settings: Settings) -> bool:
    """Builds the dataset into ``folder``; returns False when it is there already.

    Raises ValueError when the folder holds a dataset of other settings, when a record is malformed, or
    when fewer rows are left than asked for; nothing is left behind then.
    """
    identity = settings.identity()
    with writer(folder.with_name(f".{folder.name}.lock")):
        if (folder / MANIFEST).exists():
            _check_same(read_json(folder / MANIFEST)["settings"], identity, folder)
            return False
        if folder.exists():
            raise ValueError(f"{folder} is in the way and holds no dataset: delete it or use data.name=NAME")
        _build(folder, settings, identity)
    return True


def _build(folder: Path, settings: Settings, identity: dict[str, Any]) -> None:
    tokenizer = _given_tokenizer(settings)
    with whole_folder(folder) as partial:
        funnel: Counter[str] = Counter()
        rows = list(_rows(settings, funnel))
        if tokenizer is None:
            tokenizer = vocabulary.trained(text for row in rows for text in (row.problem, row.solution))
        tokenizer.save_pretrained(str(partial / "tokenizer"))
        encoded = _encode(rows, tokenizer, settings.max_length, funnel)
        splits = _split(encoded, settings, funnel)
        _check_sum(funnel)
        _write_rows(partial / "rows.parquet", splits)
        for split, pairs in splits.items():
            tokens.write(partial / "tokens" / f"{split}.arrow", (t for _, t in pairs))
        heldout = [row for row, _ in splits["test"]]
        write_jsonl(
            partial / "heldout.jsonl",
            [{"id": r.id, "problem": r.problem, "answer": r.answer} for r in heldout],
        )
        write_text(partial / "report.md", _report(folder.name, funnel, splits))
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        write_json(
            partial / MANIFEST,
            {
                "settings": identity,
                "funnel": dict(funnel),
                "rows": {split: len(pairs) for split, pairs in splits.items()},
                "tokens": {split: sum(t.length for _, t in pairs) for split, pairs in splits.items()},
                "files": {str(p.relative_to(partial)): sha256_file(p) for p in files},
                "versions": provenance.versions(),
                "git": provenance.git_commit(),
            },
        )


Pairs = list[tuple[Row, Tokens]]


def _rows(settings: Settings, funnel: Counter[str]) -> Iterator[Row]:
    checks = filters.standard(settings.max_chars)
    for record in settings.source.records():
        funnel["source records"] += 1
        try:
            if settings.columns is None:
                row = from_openr1(record, settings.verifier)
            else:
                row = from_columns(record, settings.columns, settings.clean)
        except Dropped as reason:
            funnel[f"dropped: {reason}"] += 1
            continue
        failed = next((check.name for check in checks if not check.keep(row)), None)
        if failed is None:
            yield row
        else:
            funnel[f"dropped: {failed}"] += 1


def _given_tokenizer(settings: Settings) -> Any:
    """The tokenizer that exists before the rows do; None when it is to be trained on them."""
    match settings.tokenizer:
        case "model":
            return vocabulary.from_model(settings.model, settings.model_revision)
        case "qwen3":
            return vocabulary.genuine_qwen3()
        case _:
            return None


def _encode(rows: list[Row], tokenizer: Any, max_length: int, funnel: Counter[str]) -> Pairs:
    pairs = [(row, chat.encode(tokenizer, row)) for row in rows]
    kept = [(row, t) for row, t in pairs if t.length <= max_length]
    funnel[f"dropped: over {max_length} tokens"] += len(pairs) - len(kept)
    return kept


def _split(pairs: Pairs, settings: Settings, funnel: Counter[str]) -> dict[str, Pairs]:
    """Orders rows by a hash of (seed, id), so that neither file order nor row count decides a row's split."""
    pairs = sorted(pairs, key=lambda pair: hashlib.sha256(f"{settings.seed}:{pair[0].id}".encode()).digest())
    wanted = settings.test_rows + (settings.train_rows or 1)
    if len(pairs) < wanted:
        counts = "\n".join(f"  {count:>8,}  {name}" for name, count in funnel.items())
        raise ValueError(
            f"{len(pairs):,} rows are left and data.train_rows + data.test_rows ask for {wanted:,}:\n{counts}"
        )
    end = len(pairs) if settings.train_rows is None else wanted
    splits = {"train": pairs[settings.test_rows : end], "test": pairs[: settings.test_rows]}
    funnel["dropped: beyond the rows asked for"] += len(pairs) - end
    for split, part in splits.items():
        funnel[f"kept: {split}"] = len(part)
    return splits


def _check_sum(funnel: Counter[str]) -> None:
    total = sum(count for name, count in funnel.items() if name != "source records")
    assert total == funnel["source records"], f"the funnel does not add up: {dict(funnel)}"


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    ]
    if changed:
        raise ValueError(
            f"{folder} was built with other settings:\n  " + "\n  ".join(changed)
            + "\nname another dataset with data.name=NAME, or delete that folder"
        )  # fmt: skip


def _write_rows(path: Path, splits: dict[str, Pairs]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(row) | {"split": split} for split, pairs in splits.items() for row, _ in pairs]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _report(name: str, funnel: Counter[str], splits: dict[str, Pairs]) -> str:
    lines = [f"# Dataset {name}", "", "| step | rows |", "|---|---:|"]
    lines += [f"| {step} | {count:,} |" for step, count in funnel.items() if count]
    row, encoded = splits["train"][0]
    lines += [
        "",
        f"A training row ({encoded.length} tokens):",
        "",
        "```",
        chat.render(row.problem, row.solution),
        "```",
        "",
    ]
    return "\n".join(lines)
