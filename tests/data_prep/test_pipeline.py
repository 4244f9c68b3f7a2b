"""A source with a planted defect of every kind comes out with exactly the expected survivors, each
drop named.
"""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.files import write_jsonl
from data_prep.benchmarks import sets as suites
from data_prep.build import build
from data_prep.output.stratify import Candidate, choose
from data_prep.source.source import Source
from tests.data_prep.duplicates.contamination import OWN
from tests.data_prep.planted import (
    CLEAN,
    SETS,
    SETTINGS,
    contaminated,
    planted,
    rows,
    survivors,
    write,
)


def test_exactly_the_expected_rows_survive(built: Path) -> None:
    expected = {f"clean-{i}" for i in range(CLEAN)} | {r["uuid"] for r in survivors()}
    assert {row["uuid"] for row in rows(built)} == expected
    assert {row["uuid"]: row["trace"] for row in rows(built)}["kept second trace"] == 1


def test_the_funnel_names_the_reason_for_every_drop(built: Path) -> None:
    funnel = json.loads((built / "manifest.json").read_text())["funnel"]
    dropped = {
        k.removeprefix("dropped: "): v for k, v in funnel.items() if k.startswith("dropped: ") and v
    }
    assert dropped == Counter(reason for reason, _ in planted())
    assert funnel["source records"] == sum(v for k, v in funnel.items() if k != "source records")


def test_the_report_shows_drops_of_every_filter_and_pictures(built: Path) -> None:
    report = (built / "report.md").read_text()
    for reason, count in Counter(reason for reason, _ in planted()).items():
        samples = report.partition(f"## Dropped: {reason} ({count})\n\n")[2].partition("\n\n")[0]
        assert samples.count("- ") >= min(count, 10), reason
        assert all(line.startswith("- ") and len(line) > 10 for line in samples.splitlines()), (
            reason
        )
    assert report.count("\nRow ") == 10 and "| olympiads |" in report
    assert all(
        (built / name).read_bytes().startswith(b"\x89PNG") for name in ("chars.png", "tokens.png")
    )


def test_duplicates_are_listed_with_the_row_that_stayed(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    by_id = {row["id"]: row["uuid"] for row in rows(built)}
    assert sorted(by_id[i] for i in manifest["duplicates"]) == ["clean-6", "clean-7", "clean-8"]


@pytest.fixture(params=["own", "real"])
def sets(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A folder with benchmark files, and three of its sets."""
    if request.param == "real":
        return request.getfixturevalue("benchmarks"), SETS
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in SETS:
        lines = (suites.problem_line(vars(p)) for p in suites.read_problems(OWN) if p.set == name)
        write_jsonl(folder / f"own_{name}.jsonl", lines)
    return folder, tuple(f"own_{name}" for name in SETS)


def test_planted_benchmark_problems_are_caught_and_nothing_else(
    sets: tuple[Path, tuple[str, ...]], records: list[dict[str, Any]], tmp_path: Path
) -> None:
    benchmarks, names = sets
    problems = suites.load(benchmarks, list(names), 8)
    leaks = list(contaminated(benchmarks, names))
    source = write(tmp_path / "source", records[:CLEAN] + leaks, 2)
    settings = replace(SETTINGS, source=Source(source), benchmarks=benchmarks, decontaminate=names)
    build(tmp_path / "data", settings)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert len(leaks) == len(problems) == manifest["funnel"]["dropped: in a benchmark"]
    assert {row["uuid"] for row in rows(tmp_path / "data")} == {f"clean-{i}" for i in range(CLEAN)}
    found = {(f["set"], f["id"]) for f in manifest["contaminated"].values()}
    assert found == {(p.set, p.id) for p in problems}
    assert all(f["overlap"] and f["coverage"] >= 0.5 for f in manifest["contaminated"].values())


def test_the_subset_is_exact_stratified_and_order_free() -> None:
    rng = random.Random(2)
    pool = [
        Candidate(f"r{i}", rng.choice("aaab"), int(rng.lognormvariate(8.5, 0.8)))
        for i in range(3_000)
    ]
    chosen = choose(pool, 1_000, seed=20260515)
    assert len(set(chosen)) == 1_000
    assert choose(rng.sample(pool, len(pool)), 1_000, seed=20260515) == chosen
    assert choose(pool, 1_000, seed=1) != chosen
    picked = set(chosen)
    for source in "ab":
        for low, high in ((0, 4_000), (4_000, 8_000), (8_000, 10**9)):
            members = [c.id for c in pool if c.source == source and low < c.length <= high]
            assert abs(len(picked & set(members)) - len(members) / 3) < 3
    with pytest.raises(UserError, match="3,000 rows are left, but 3,001"):
        choose(pool, 3_001, seed=1)
