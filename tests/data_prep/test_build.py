"""The dataset folder: whole or absent, reproducible, its funnel adding up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import arithmetic, tokens
from data_prep.build import Settings, build
from data_prep.files import sha256_file
from data_prep.sources import Source

SETTINGS = Settings(
    source=Source("arithmetic", generator={"problems": 300, "digits": 2, "seed": 1}),
    columns=None, clean=None, verifier="correctness_math_verify", tokenizer="trained", model="", model_revision=None,
    max_chars=60_000, max_length=256, train_rows=None, test_rows=20, seed=7,
)  # fmt: skip


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
    assert tokens.read(built / "tokens" / "train.arrow").num_rows == manifest["rows"]["train"]
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
    heldout = {json.loads(line)["problem"] for line in (built / "heldout.jsonl").read_text().splitlines()}
    assert heldout == split["test"] and not split["test"] & split["train"]


def test_a_second_build_does_nothing_and_other_settings_are_refused(built: Path) -> None:
    before = sha256_file(built / "manifest.json")
    assert not build(built, SETTINGS)
    with pytest.raises(ValueError, match=r"other settings:\n  seed: 7 -> 8\n"):
        build(built, replace(SETTINGS, seed=8))
    assert sha256_file(built / "manifest.json") == before


def test_the_same_settings_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", SETTINGS)
    for name in ("rows.parquet", "tokens/train.arrow", "tokenizer/tokenizer.json", "heldout.jsonl"):
        assert sha256_file(tmp_path / "again" / name) == sha256_file(built / name)


def test_too_few_rows_is_an_error_that_shows_the_funnel_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ask for 1,020:\n +300  source records"):
        build(tmp_path / "d", replace(SETTINGS, train_rows=1000))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named_with_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"problem": "p", "solution": "s", "answer": "1"}\n{"problem": \n')
    columns = {c: c for c in ("problem", "solution", "answer")}
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: not valid JSON"):
        build(tmp_path / "d", replace(SETTINGS, source=Source(str(source)), columns=columns))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 not parquet")
    with pytest.raises(ValueError, match=r"cut\.parquet: not a readable parquet file"):
        build(tmp_path / "d", replace(SETTINGS, source=Source(str(tmp_path / "cut.parquet"))))
    assert not (tmp_path / "d").exists()


def test_gsm8k_encodes_in_the_genuine_vocabulary(benchmarks: Path, tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, source=Source(str(benchmarks / "gsm8k_train.jsonl")), tokenizer="qwen3", clean="gsm8k",
        columns={c: c for c in ("problem", "solution", "answer")}, max_length=1024,
    )  # fmt: skip
    build(tmp_path / "gsm8k", settings)
    manifest = json.loads((tmp_path / "gsm8k" / "manifest.json").read_text())
    assert manifest["funnel"]["source records"] == 7473
    assert manifest["rows"]["train"] > 7400
    kept = rows(tmp_path / "gsm8k")
    assert not any("<<" in r["solution"] or "####" in r["solution"] for r in kept)
    table = tokens.read(tmp_path / "gsm8k" / "tokens" / "train.arrow")
    for i in range(50):
        row = tokens.get(table, i)
        assert (row.input_ids[row.prompt_len], row.input_ids[-1]) == (151667, 151645)
