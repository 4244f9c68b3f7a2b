"""The dataset folder: whole or absent, reproducible, its funnel adding up."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.files import sha256_file
from data_prep import rules
from data_prep.build import Settings, build
from data_prep.duplicates import minhash
from data_prep.rows.map_shard import RowSettings
from data_prep.settings import other_rules
from data_prep.source import arithmetic, shards
from data_prep.source.source import Source
from data_prep.tokenizer import token_files

ROWS = RowSettings(
    columns=None,
    clean=None,
    verifier="correctness_math_verify",
    trace_choice="first",
    question_types=None,
    max_chars=60_000,
    max_length=256,
    min_think_tokens=1,
    seed=7,
)
SETTINGS = Settings(
    source=Source("arithmetic", generator={"problems": 300, "digits": 2, "seed": 1}),
    rows=ROWS,
    tokenizer="trained",
    model="",
    model_revision=None,
    benchmarks=Path("none"),
    decontaminate=(),
    train_rows=None,
    test_rows=20,
    max_bad_records=0,
)
GSM8K = {"problem": "problem", "solution": "solution", "answer": "answer", "uuid": "id"}


def rows(folder: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "rows.parquet").to_pylist()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    assert build(folder, SETTINGS)
    return folder


def test_the_funnel_adds_up_and_counts_what_the_files_hold(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    funnel = manifest["funnel"]
    assert funnel.pop("source records") == 300 == sum(funnel.values())
    assert sum(v for k, v in funnel.items() if k.startswith("dropped")) > 5
    assert manifest["rows"] == {"train": funnel["kept: train"], "test": 20}
    assert len(rows(built)) == sum(manifest["rows"].values())
    assert token_files.read(built / "tokens" / "train.arrow").num_rows == manifest["rows"]["train"]
    assert {name: sha256_file(built / name) for name in manifest["files"]} == manifest["files"]


def test_survivors_are_exactly_the_records_with_a_good_trace(built: Path) -> None:
    """Brute force over the generator: a trace is good when its text ends in the right box."""
    expected = {}
    for record in arithmetic.records(problems=300, digits=2, seed=1):
        ending = f"</think>\n\nThe answer is \\boxed{{{record['answer']}}}."
        good = [i for i, text in enumerate(record["generations"]) if text.endswith(ending)]
        if good:
            expected[record["uuid"]] = good[0]
    assert {row["uuid"]: row["trace"] for row in rows(built)} == expected


def test_test_problems_are_not_in_the_training_set(built: Path) -> None:
    split = {s: {r["problem"] for r in rows(built) if r["split"] == s} for s in ("train", "test")}
    heldout = {
        json.loads(line)["problem"] for line in (built / "heldout.jsonl").read_text().splitlines()
    }
    assert heldout == split["test"] and not split["test"] & split["train"]


def test_a_dataset_of_older_rules_stays_usable_under_its_own(built: Path, tmp_path: Path) -> None:
    assert other_rules(built) == ""
    folder = tmp_path / "data" / "old"
    shutil.copytree(built, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"].pop("rules") == rules.current()
    manifest["settings"]["thresholds"] = {"dedup.SIMILAR": 0.7, "gone.LIMIT": 3}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not build(folder, SETTINGS)
    told = f"{folder} was built under other versions of the rules: answers 1 (now {rules.ANSWERS})"
    assert other_rules(folder).startswith(told)
    with pytest.raises(UserError, match=r"other settings:\n  rows\.seed: 7 -> 8\nuse"):
        build(folder, replace(SETTINGS, rows=replace(ROWS, seed=8)))


def test_a_second_build_does_nothing_and_other_settings_are_refused(
    built: Path, monkeypatch: Any
) -> None:
    before = sha256_file(built / "manifest.json")
    assert not build(built, SETTINGS)
    with pytest.raises(UserError, match=r"other settings:\n  rows\.seed: 7 -> 8\n"):
        build(built, replace(SETTINGS, rows=replace(ROWS, seed=8)))
    monkeypatch.setattr(minhash, "SIMILAR", 0.7)
    with pytest.raises(UserError, match=r"thresholds\.dedup\.SIMILAR: 0\.8 -> 0\.7\n"):
        build(built, SETTINGS)
    assert sha256_file(built / "manifest.json") == before


def test_the_same_settings_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", SETTINGS)
    for name in ("rows.parquet", "tokens/train.arrow", "tokenizer/tokenizer.json", "heldout.jsonl"):
        assert sha256_file(tmp_path / "again" / name) == sha256_file(built / name)


def test_too_few_rows_is_an_error_that_shows_the_funnel_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"need 1,020: .*\n +300  source records"):
        build(tmp_path / "d", replace(SETTINGS, train_rows=1000))
    assert not (tmp_path / "d").exists()
    assert not list(tmp_path.glob(".d.partial"))


def test_bad_records_are_listed_and_fail_the_build_above_the_limit(tmp_path: Path) -> None:
    source, good = (
        tmp_path / "rows.jsonl",
        {"problem": "p {i}", "solution": "s", "answer": "1", "id": "u{i}"},
    )
    lines = [json.dumps({k: v.format(i=i) for k, v in good.items()}) for i in range(30)]
    lines[3], lines[7], lines[9] = (
        '{"problem": ',
        '{"problem": "p", "solution": "s", "answer": [5], "id": "x"}',
        '"text"',
    )
    lines[13] = lines[13].replace('"1"', "null").replace("p 13", "dropped before \\ud800 is seen")
    lines[11] = lines[11].replace("p 11", "lone \\ud800 surrogate")
    source.write_bytes("\n".join(lines).encode() + b'\n{"problem": "\xff"}\n')
    settings = replace(
        SETTINGS,
        source=Source(str(source)),
        rows=replace(ROWS, columns=GSM8K),
        test_rows=2,
        max_bad_records=4,
    )
    with pytest.raises(
        UserError, match=r"5 records are malformed, more than data\.max_bad_records=4"
    ) as error:
        build(tmp_path / "d", settings)
    for place in (
        "row 4: not valid JSON",
        "row 8: column 'answer' must be str, not list",
        "row 10: not an object",
        "row 12: a lone surrogate",
        "row 31: not valid JSON",
    ):
        assert place in str(error.value)
    assert not (tmp_path / "d").exists()
    build(tmp_path / "d", replace(settings, max_bad_records=5))
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert len(manifest["bad_records"]) == manifest["funnel"]["dropped: malformed"] == 5
    assert sum(manifest["rows"].values()) == 25 and manifest["funnel"]["dropped: no answer"] == 1


@pytest.mark.parametrize("size", [1, 37, 1000])
def test_a_jsonl_file_cut_anywhere_has_the_same_records(
    size: int, tmp_path: Path, monkeypatch: Any
) -> None:
    lines = [json.dumps({"i": i, "text": "x" * (i * 7 % 90)}) for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\r\n".join([*lines[:20], "", *lines[20:]]).encode())
    monkeypatch.setattr(shards, "JSONL_UNIT_BYTES", size)
    cut = shards.cut(path)
    found = [r for unit in cut for r in unit.records()]
    assert [r.values["i"] for r in found] == list(range(40))
    assert [r.where.rpartition(" ")[2] for r in found] == [
        str(i + 1 + (i >= 20)) for i in range(40)
    ]
    assert len(cut) == -(-path.stat().st_size // size)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_parquet_file_cut_anywhere_has_the_same_records(
    size: int, tmp_path: Path, monkeypatch: Any
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "i": range(600),
            "texts": [["x" * (i % 9), "y"] for i in range(600)],
            "unused": ["z"] * 600,
        }
    )
    pq.write_table(table, path, row_group_size=400)
    monkeypatch.setattr(shards, "PARQUET_UNIT_ROWS", size)
    cut = shards.cut(path)
    found = [r for unit in cut for r in unit.records({"i", "texts"})]
    assert [r.values for r in found] == table.select(["i", "texts"]).to_pylist()
    assert [r.where for r in found] == [f"{path}, row {i + 1}" for i in range(600)]
    assert sum(unit.rows for unit in cut) == 600 and len(cut) == -(-400 // size) + -(-200 // size)
    # Where one is missing the record shows all there are, for the error that lists them.
    assert next(iter(cut[0].records({"i", "absent"}))).values.keys() == {"i", "texts", "unused"}


def test_paths_are_absolute_for_workers_that_run_elsewhere(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    assert [unit.path for unit in Source("*.jsonl").open()[0]] == [tmp_path / "rows.jsonl"]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "empty.jsonl").touch()
    pq.write_table(pa.table({"problem": ["x" * 1000] * 500}), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:200])
    pq.write_table(pa.table({"problem": []}), tmp_path / "none.parquet")
    pq.write_table(pa.table({"question": ["x"]}), tmp_path / "other.parquet")
    for name, words in (
        ("empty.jsonl", "is empty"),
        ("cut.parquet", "not a readable parquet file"),
        ("none.parquet", "has no rows"),
        ("other.parquet", r"row 1: no column 'generations'; it has question"),
        ("absent.jsonl", "matches no file"),
        ("", "name them with a pattern"),
    ):
        with pytest.raises(UserError, match=words) as error:
            build(tmp_path / "d", replace(SETTINGS, source=Source(f"{tmp_path}/{name}")))
        assert name in str(error.value) and not (tmp_path / "d").exists()


def test_many_records_with_one_fault_are_one_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"chat": []}\n' * 30 + '{"other": []}\n')
    rows = replace(ROWS, columns={"messages": "messages"})
    with pytest.raises(UserError) as error:
        build(tmp_path / "d", replace(SETTINGS, source=Source(str(source)), rows=rows))
    head, *kinds = str(error.value).splitlines()
    assert head == "31 records are malformed, more than data.max_bad_records=0:"
    first, second = kinds
    assert first.endswith(
        "row 1: no column 'messages'; it has chat (set data.columns) (and 29 more like it)"
    )
    assert second.endswith("row 31: no column 'messages'; it has other (set data.columns)")


def test_gsm8k_encodes_in_the_genuine_vocabulary(benchmarks: Path, tmp_path: Path) -> None:
    with (benchmarks / "gsm8k_train.jsonl").open() as lines:
        (tmp_path / "train.jsonl").write_text("".join(islice(lines, 1_000)))
    settings = replace(
        SETTINGS,
        source=Source(str(tmp_path / "train.jsonl")),
        tokenizer="qwen3",
        rows=replace(ROWS, clean="gsm8k", columns=GSM8K, max_length=1024),
    )
    build(tmp_path / "gsm8k", settings)
    manifest = json.loads((tmp_path / "gsm8k" / "manifest.json").read_text())
    assert manifest["funnel"]["source records"] == 1_000
    assert manifest["rows"]["train"] > 970
    kept = rows(tmp_path / "gsm8k")
    assert not any("<<" in r["solution"] or "####" in r["solution"] for r in kept)
    table = token_files.read(tmp_path / "gsm8k" / "tokens" / "train.arrow")
    for i in range(50):
        row = token_files.get(table, i)
        assert (row.input_ids[row.prompt_len], row.input_ids[-1]) == (151667, 151645)
