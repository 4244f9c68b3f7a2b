"""A source with a planted defect of every kind comes out with exactly the expected survivors, each drop named."""

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep import benchmarks as suites
from data_prep.build import Settings, Workers, build
from data_prep.files import sha256_file
from data_prep.mapping import RowSettings
from data_prep.sources import Source
from data_prep.subset import Candidate, choose
from tests.conftest import ROOT
from tests.data_prep.openr1 import NAMES, PLACES, THINGS, clean, record, thought, trace
from tests.data_prep.test_decontaminate import respaced, retexed, reworded

CLEAN = 300
SETS = ("aime2025", "aime2026", "amc2023")
SETTINGS = Settings(
    source=Source("none"),
    rows=RowSettings(
        columns=None, clean=None, verifier="correctness_math_verify", trace_choice="first",
        question_types=("math-word-problem", "MCQ"), max_chars=6_000, max_length=1_500, min_think_tokens=12, seed=3,
    ),
    tokenizer="qwen3", model="", model_revision=None, benchmarks=Path("none"), decontaminate=(), train_rows=None,
    test_rows=20, max_bad_records=0,
)  # fmt: skip


def planted() -> Iterator[tuple[str, dict[str, Any]]]:
    """(the reason it must be dropped for, a record)."""
    rng = random.Random(0)
    long = thought(rng, 60)
    good, wrong = trace("7", long), trace("8", long)

    def problem(words: str) -> str:
        return f"Planted with {words}: {thought(rng, 15)}?"

    def one(reason: str, name: str, generations: list[str], answer: Any = "7", **more: Any) -> tuple[str, dict]:
        return reason, record(f"bad {name}", problem(name), answer, generations, **more)

    misaligned = {"correctness_math_verify": [False, True]}
    yield one("no trace whose own box is the answer", "flags of the other trace", [good, wrong], **misaligned)
    yield one("no trace whose own box is the answer", "right flag, wrong box", [wrong])
    yield one("no verified trace", "no flags at all", [good], correctness_math_verify=None)
    yield one("no verified trace", "null flag", [good], correctness_math_verify=[None])
    yield one("no complete trace", "cut off", [good], is_reasoning_complete=[False])
    yield one("no complete trace", "ran into the limit", [good], finish_reasons=["length"])
    yield one("no answer", "null answer", [good], answer=None)
    yield one("no checkable answer", "answer not found", [trace("notfound", long)], answer="notfound")
    yield one("no checkable answer", "proof answer", [trace("proof", long)], answer="proof")
    yield one("question type", "proof question", [good], question_type="proof")
    yield one(
        "control token in the text", "end of turn", [good.replace("check", "<|im_end|> check", 1) + " <|im_end|>"]
    )
    yield one("not exactly one think block", "two think blocks", [f"<think>\na\n</think>\n{good}"])
    yield one("not exactly one think block", "text before the block", [f"Well. {good}"])
    yield one(
        "no trace whose own box is the answer", "box only in the thought", [trace("7", long + r" \boxed{7}", "7")]
    )
    yield one("no trace whose own box is the answer", "unclosed box", [trace("7", long, r"\boxed{7")])
    yield one("over 6000 characters", "long text", [trace("7", thought(rng, 1_200))])
    yield one("over 1500 tokens", "many tokens", [trace("7", thought(rng, 700))])
    yield one("under 12 tokens of thinking", "no thinking", [trace("7", "seven")])
    yield one("degenerate repetition", "loop", [trace("7", "wait, let me check again. " * 150)])
    yield one("degenerate repetition", "late loop", [trace("7", thought(rng, 150) + " so 12" * 700)])
    yield one("mixed languages", "Chinese", [trace("7", thought(rng, 400) + " 因此我们 hence")])
    yield "no problem", record("bad empty problem", " ", "7", [good])
    yield "same row twice", clean(5)
    yield "duplicate problem", clean(6) | {"uuid": "exact copy"}
    spaced = clean(7)
    yield "duplicate problem", spaced | {"uuid": "spacing", "problem": spaced["problem"].upper().replace(" ", "  ")}
    near = clean(8)
    yield (
        "duplicate problem",
        near | {"uuid": "near copy", "problem": near["problem"].replace("How many", "Well, how many")},
    )


def survivors() -> Iterator[dict[str, Any]]:
    """Records that look defective and are not."""
    rng = random.Random(1)
    nested = r"\frac{1}{\sqrt{2}}"
    yield record("kept nested braces", f"Nested? {thought(rng, 15)}", nested, [trace(nested, thought(rng, 60))])
    wrong, good = trace("8", thought(rng, 60)), trace("7", thought(rng, 60))
    flags = {"correctness_math_verify": [False, True]}
    yield record("kept second trace", f"Second? {thought(rng, 15)}", "7", [wrong, good], **flags)
    several = trace("7", thought(rng, 60)).replace("The answer", r"Not \boxed{3}. The answer")
    yield record("kept last box", f"Last? {thought(rng, 15)}", "7", [several])
    greek = trace("7", thought(rng, 60) + " α + β ≤ γ")
    yield record("kept Greek", f"Greek? {thought(rng, 15)}", "7", [greek], finish_reasons=None)
    template = clean(9)
    yield template | {"uuid": "kept template", "problem": template["problem"].replace("packs ", "packs 1"),
                      "answer": "12345", "generations": [trace("12345", thought(rng, 60))]}  # fmt: skip


def contaminated(folder: Path) -> Iterator[dict[str, Any]]:
    """Real problems as they are, reworded, re-spaced and re-TeXed; amc_aime gets no free pass."""
    for i, p in enumerate(suites.load(folder, list(SETS), 8)):
        rng = random.Random(p.id)
        forms = {"as it is": p.problem, "spaced": respaced(p.problem, rng), "TeX": retexed(p.problem)}
        forms["reworded"] = reworded(p.problem, rng, [*NAMES, *THINGS, *PLACES])
        form, text = list(forms.items())[i % 4]
        answer = [trace(p.answer, thought(rng, 60))]
        yield record(f"leak {p.id} {form}", text, p.answer, answer, source="amc_aime")


def write(folder: Path, records: list[dict[str, Any]], files: int) -> str:
    """Deals the records to JSONL files; returns their glob."""
    folder.mkdir(parents=True)
    for k in range(files):
        text = "".join(json.dumps(r) + "\n" for r in records[k::files])
        (folder / f"part-{k}.jsonl").write_text(text)
    return f"{folder}/*.jsonl"


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [clean(i) for i in range(CLEAN)] + list(survivors()) + [r for _, r in planted()]


@pytest.fixture(scope="module")
def built(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    source = write(folder / "source", records, 3)
    build(folder / "data", replace(SETTINGS, source=Source(source)), Workers(processes=2))
    return folder / "data"


def rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "rows.parquet").to_pylist()


def test_exactly_the_expected_rows_survive(built: Path) -> None:
    expected = {f"clean-{i}" for i in range(CLEAN)} | {r["uuid"] for r in survivors()}
    assert {row["uuid"] for row in rows(built)} == expected
    assert {row["uuid"]: row["trace"] for row in rows(built)}["kept second trace"] == 1


def test_the_funnel_names_the_reason_for_every_drop(built: Path) -> None:
    funnel = json.loads((built / "manifest.json").read_text())["funnel"]
    dropped = {k.removeprefix("dropped: "): v for k, v in funnel.items() if k.startswith("dropped: ") and v}
    assert dropped == Counter(reason for reason, _ in planted())
    assert funnel["source records"] == sum(v for k, v in funnel.items() if k != "source records")


def test_the_report_shows_drops_of_every_filter_and_pictures(built: Path) -> None:
    report = (built / "report.md").read_text()
    in_rows = {reason for reason, _ in planted()} - {"same row twice", "duplicate problem"}
    assert all(f"## Dropped: {reason} (" in report for reason in in_rows)
    assert report.count("\nRow ") == 10 and "| olympiads |" in report
    assert all((built / name).read_bytes().startswith(b"\x89PNG") for name in ("chars.png", "tokens.png"))


def test_duplicates_are_listed_with_the_row_that_stayed(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    by_id = {row["id"]: row["uuid"] for row in rows(built)}
    assert sorted(by_id[i] for i in manifest["duplicates"]) == ["clean-6", "clean-7", "clean-8"]


def test_planted_benchmark_problems_are_caught_and_nothing_else(
    benchmarks: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    leaks = list(contaminated(benchmarks))
    source = write(tmp_path / "source", records[:CLEAN] + leaks, 2)
    settings = replace(SETTINGS, source=Source(source), benchmarks=benchmarks, decontaminate=SETS)
    build(tmp_path / "data", settings)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert len(leaks) == 24 == manifest["funnel"]["dropped: in a benchmark"]
    assert {row["uuid"] for row in rows(tmp_path / "data")} == {f"clean-{i}" for i in range(CLEAN)}
    found = {(f["set"], f["id"]) for f in manifest["contaminated"].values()}
    assert found == {(p.set, p.id) for p in suites.load(benchmarks, list(SETS), 8)}
    assert all(f["overlap"] and f["coverage"] >= 0.5 for f in manifest["contaminated"].values())


@pytest.mark.parametrize("how", ["one process", "shuffled files", "parquet", "ray"])
def test_the_same_bytes_however_it_is_built(
    how: str, built: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shuffled = random.Random(5).sample(records, len(records)) if how == "shuffled files" else records
    source = write(tmp_path / "source", shuffled, 5 if how == "shuffled files" else 3)
    if how == "parquet":
        source = str(tmp_path / "rows.parquet")
        pq.write_table(pa.Table.from_pylist(records), source, row_group_size=100)
    workers = {"ray": Workers(engine="ray"), "one process": Workers(processes=1)}.get(how, Workers(processes=2))
    build(tmp_path / "data", replace(SETTINGS, source=Source(source)), workers)
    for name in ("rows.parquet", "tokens/train.arrow", "tokens/test.arrow", "heldout.jsonl"):
        assert sha256_file(tmp_path / "data" / name) == sha256_file(built / name), name


def test_a_killed_build_leaves_no_dataset_and_the_next_one_makes_it(
    built: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", records, 3)
    code = (
        "import os, sys; from pathlib import Path; from dataclasses import replace\n"
        "from data_prep import writing; from data_prep.sources import Source\n"
        "from data_prep.build import build, Workers\n"
        "from tests.data_prep.test_pipeline import SETTINGS\n"
        "writing.report = lambda *a: os.kill(os.getpid(), 9)\n"
        f"build(Path({str(tmp_path / 'data')!r}), replace(SETTINGS, source=Source({source!r})), Workers(processes=1))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == -9
    assert not (tmp_path / "data").exists() and (tmp_path / ".data.partial").exists()
    assert build(tmp_path / "data", replace(SETTINGS, source=Source(source)), Workers(processes=1))
    assert sha256_file(tmp_path / "data" / "rows.parquet") == sha256_file(built / "rows.parquet")
    assert not (tmp_path / ".data.partial").exists()


def test_a_full_disk_leaves_the_old_dataset_and_no_new_one(
    built: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        source = write(tmp_path / "source", records, 3)
        (disk / "old").mkdir()
        shutil.copy(built / "manifest.json", disk / "old")
        with pytest.raises(OSError):
            build(disk / "new", replace(SETTINGS, source=Source(source), tokenizer="trained"), Workers(processes=1))
        assert [p.name for p in disk.iterdir()] == ["old"]
        assert sha256_file(disk / "old" / "manifest.json") == sha256_file(built / "manifest.json")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_label_fault_fails_the_build(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """A template that loses the think block, as Qwen3's own does on single messages."""
    source = write(tmp_path / "source", records[:30], 1)
    code = (
        "from pathlib import Path; from dataclasses import replace\n"
        "from data_prep import chat; from data_prep.sources import Source\n"
        "from data_prep.build import build, Workers\n"
        "from tests.data_prep.test_pipeline import SETTINGS\n"
        "encode = chat.encode\n"
        "chat.encode = lambda t, row: encode(t, replace(row, solution=row.solution.split('</think>')[-1]))\n"
        f"build(Path({str(tmp_path / 'data')!r}), replace(SETTINGS, source=Source({source!r})), Workers(processes=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "label audit, row" in done.stderr and "loss does not start at <think>" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_subset_is_exact_stratified_and_order_free() -> None:
    rng = random.Random(2)
    pool = [Candidate(f"r{i}", rng.choice("aaab"), int(rng.lognormvariate(8.5, 0.8))) for i in range(3_000)]
    chosen = choose(pool, 1_000, seed=20260515)
    assert len(set(chosen)) == 1_000
    assert choose(rng.sample(pool, len(pool)), 1_000, seed=20260515) == chosen
    assert choose(pool, 1_000, seed=1) != chosen
    picked = set(chosen)
    for source in "ab":
        for low, high in ((0, 4_000), (4_000, 8_000), (8_000, 10**9)):
            members = [c.id for c in pool if c.source == source and low < c.length <= high]
            assert abs(len(picked & set(members)) - len(members) / 3) < 3
    with pytest.raises(ValueError, match="3,000 rows are left and 3,001"):
        choose(pool, 3_001, seed=1)
