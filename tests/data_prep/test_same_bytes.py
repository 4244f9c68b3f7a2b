"""The same records give the same bytes, however they are spread over files, units, workers and
engines.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.files import read_json, sha256_file
from data_prep.build import Workers, build
from data_prep.source import shards
from data_prep.source.source import Source
from tests.data_prep.openr1 import clean, record, thought, trace
from tests.data_prep.planted import SETTINGS, write

FILES = (
    "rows.parquet",
    "tokens/train.arrow",
    "tokens/test.arrow",
    "heldout.jsonl",
    "spare.jsonl",
    "tokenizer/tokenizer.json",
)


@pytest.mark.parametrize("how", ["one process", "shuffled files", "parquet", "ray"])
def test_the_same_bytes_however_it_is_built(
    how: str,
    built: Path,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shuffled = (
        random.Random(5).sample(records, len(records)) if how == "shuffled files" else records
    )
    source = write(tmp_path / "source", shuffled, 5 if how == "shuffled files" else 3)
    if how == "parquet":
        # One row group, cut into units of its rows.
        monkeypatch.setattr(shards, "PARQUET_UNIT_ROWS", 100)
        source = str(tmp_path / "rows.parquet")
        pq.write_table(pa.Table.from_pylist(records), source)
    workers = {"ray": Workers(engine="ray"), "one process": Workers(processes=1)}.get(
        how, Workers(processes=2)
    )
    build(tmp_path / "data", replace(SETTINGS, source=Source(source)), workers)
    for name in FILES:
        assert sha256_file(tmp_path / "data" / name) == sha256_file(built / name), name


def tied() -> list[dict[str, Any]]:
    """Records that differ in nothing that ranks them: equal lengths, equal ids, one problem in
    several wordings.
    """
    rng = random.Random(4)
    found = []
    for i in range(20):
        base = clean(i)
        for k in range(3):
            text = trace(base["answer"], f"{thought(random.Random(i), 40)} {k}")
            found.append(base | {"uuid": f"twin {i} {k}", "generations": [text]})
            found.append(base | {"generations": [text]})
    for i in range(20):
        leak = clean(1_000 + i)
        for words in ("", "Well, ", "So then, tell us this: "):
            found.append(leak | {"uuid": f"leak {i} {words}", "problem": words + leak["problem"]})
    return found + [
        record(f"more {i}", thought(rng, 15), "7", [trace("7", thought(rng, 40))])
        for i in range(200)
    ]


def test_no_order_decides_between_ties_or_what_the_tokenizer_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [
        {"id": str(i), "answer": "7", "problem": clean(1_000 + i)["problem"]} for i in range(20)
    ]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    settings = replace(SETTINGS, benchmarks=tmp_path, decontaminate=("ours",), train_rows=150)
    records = tied()
    one, other = tmp_path / "one", tmp_path / "other"
    build(
        one,
        replace(settings, source=Source(write(tmp_path / "a", records, 1))),
        Workers(processes=1),
    )
    monkeypatch.setattr(shards, "JSONL_UNIT_BYTES", 20_000)
    shuffled = random.Random(1).sample(records, len(records))
    build(
        other,
        replace(settings, source=Source(write(tmp_path / "b", shuffled, 4))),
        Workers(processes=2),
    )
    for name in FILES:
        assert sha256_file(one / name) == sha256_file(other / name), name
    keys = ("funnel", "row_ids", "duplicates", "contaminated")
    manifest, again = (
        {key: read_json(folder / "manifest.json")[key] for key in keys} for folder in (one, other)
    )
    assert manifest == again
    assert manifest["funnel"]["dropped: same row twice"] == 40
    assert (
        manifest["funnel"]["dropped: duplicate problem"] > 60 and len(manifest["contaminated"]) > 19
    )
    assert manifest["funnel"]["dropped: beyond the rows asked for"] > 40
