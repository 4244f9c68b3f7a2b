"""One id for several problems, one problem with several answers, and two headings for one problem:
the same outcome in every order of rows, files and workers.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.files import read_json, sha256_file
from common.records import row_id
from data_prep.build import Workers, build
from data_prep.output.clashes import SEVERAL_ANSWERS
from data_prep.output.folder import token_file
from data_prep.source import shards
from data_prep.source.source import Source
from data_prep.tokenizer import token_files
from tests.data_prep.openr1 import clean, record, thought, trace
from tests.data_prep.planted import SETTINGS, rows, write
from tests.data_prep.test_same_bytes import FILES

TEMPLATE = "Decide whether the curve given by the following equation passes through the origin: "


def one(uuid: str, problem: str, answer: str, length: int = 40) -> dict[str, Any]:
    text = trace(answer, thought(random.Random(f"{uuid} {problem} {answer}"), length))
    return record(uuid, problem, answer, [text], source="olympiads")


def clashing() -> list[dict[str, Any]]:
    barn = "How many of the sheep in the barn of the miller are still there on Friday?"
    found = [one("shared", f"Of {i} bells in the tower, how many ring?", str(i)) for i in (8, 9, 5)]
    # A copy of the second, and of the third in capital letters, under the same id.
    found += [found[1], one("shared", found[2]["problem"].upper(), "5", 30)]
    found += [one(f"barn {answer}", barn, answer) for answer in ("12", "15", "12.0")]
    found += [one("barn heading", f"Problem 4. (6 points) {barn.upper()}", "12")]
    # One id, one problem, two answers.
    found += [one("twice", "How many lamps does the keeper of the pier light?", a) for a in "34"]
    # Equal answers in two spellings are no dispute.
    crates = "What share of the crates is empty when the boat leaves?"
    found += [one("crates 1", crates, "\\frac{1}{2}"), one("crates 2", crates, "1/2", 50)]
    heading = "A line of {} ducks walks to the pond past the mill; how many legs walk there in all?"
    found += [one(f"ducks {h}", f"{h} {heading.format(9)}", "18") for h in ("Example 3", "[7]")]
    found += [one(f"curve {c}", TEMPLATE + c, "No") for c in ("$x=-4$", "$x^2+y^2=25$", "$x=4$")]
    return found + [clean(i) for i in range(60)]


def made(folder: Path, records: list[dict[str, Any]], files: int, processes: int) -> Path:
    source = Source(write(folder / "source", records, files))
    build(folder / "data", replace(SETTINGS, source=source), Workers(processes=processes))
    return folder / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("clashes"), clashing(), 1, 1)


def kept(data: Path, uuid: str) -> list[dict[str, Any]]:
    return [row for row in rows(data) if row["uuid"].startswith(uuid)]


def test_problems_under_one_id_are_all_kept_under_ids_of_their_own(data: Path) -> None:
    shared = kept(data, "shared")
    assert {row["answer"] for row in shared} == {"8", "9", "5"}
    ids = {row["id"] for row in rows(data)}
    assert len(ids) == len(rows(data)) and row_id("olympiads", "shared", 0) not in ids
    assert read_json(data / "manifest.json")["funnel"]["dropped: same row twice"] == 2


def test_files_of_rows_and_tokens_have_the_new_ids(data: Path) -> None:
    manifest = read_json(data / "manifest.json")
    for split in ("train", "test"):
        encoded = token_files.read(token_file(data, split)).column("id").to_pylist()
        assert encoded == manifest["row_ids"][split]
        assert encoded == [row["id"] for row in rows(data) if row["split"] == split]


def test_ids_without_a_clash_are_as_they_were(data: Path) -> None:
    for row in rows(data):
        if row["uuid"] != "shared":
            assert row["id"] == row_id(row["source"], row["uuid"], row["trace"])


def test_a_problem_with_several_answers_is_dropped_with_all_its_rows(data: Path) -> None:
    assert not kept(data, "barn") and not kept(data, "twice")
    assert read_json(data / "manifest.json")["funnel"][f"dropped: {SEVERAL_ANSWERS}"] == 6
    report = (data / "report.md").read_text()
    samples = report.partition(f"## Dropped: {SEVERAL_ANSWERS} (6)\n\n")[2].partition("\n\n")[0]
    assert "`answer 15: How many of the sheep" in samples and "`answer 3: How many" in samples


def test_two_spellings_and_two_headings_are_duplicates_and_templates_are_not(data: Path) -> None:
    assert [row["uuid"] for row in kept(data, "crates")] == ["crates 1"]
    (ducks,) = kept(data, "ducks")
    assert ducks["problem"].startswith(("Example 3 A line", "[7] A line"))
    assert len(kept(data, "curve")) == 3
    assert read_json(data / "manifest.json")["funnel"]["dropped: duplicate problem"] == 2


@pytest.mark.parametrize(("seed", "files", "processes"), [(1, 4, 2), (2, 3, 1)])
def test_no_order_of_rows_files_or_workers_matters(
    seed: int,
    files: int,
    processes: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "JSONL_UNIT_BYTES", 9_000)
    records = random.Random(seed).sample(clashing(), len(clashing()))
    other = made(tmp_path, records, files, processes)
    for name in FILES:
        assert sha256_file(other / name) == sha256_file(data / name), name
    first, second = (read_json(folder / "manifest.json") for folder in (data, other))
    for key in ("funnel", "row_ids", "duplicates"):
        assert first[key] == second[key], key


def test_malformed_records_are_listed_by_file_and_row(tmp_path: Path) -> None:
    lines = [json.dumps(clean(i)) for i in range(40)]
    for i in (1, 9, 10, 19, 29):
        lines[i] = "{"
    folder = tmp_path / "source"
    folder.mkdir()
    for name, part in (("part-10", lines[:12]), ("part-9", lines)):
        (folder / f"{name}.jsonl").write_text("\n".join(part))
    settings = replace(SETTINGS, source=Source(f"{folder}/*.jsonl"))
    places = [("part-9", row) for row in (2, 10, 11, 20, 30)]
    places += [("part-10", row) for row in (2, 10, 11)]
    wanted = [f"{folder}/{name}.jsonl, row {row}" for name, row in places]

    def found(text: str) -> list[str]:
        starts = sorted((text.find(f"{place}: "), place) for place in wanted)
        assert starts[0][0] >= 0
        return [place for _, place in starts]

    with pytest.raises(UserError) as error:
        build(tmp_path / "data", settings)
    first, second = str(error.value).splitlines()[1:]
    assert wanted[0] in first and first.endswith(" (and 4 more like it)")
    assert wanted[5] in second and second.endswith(" (and 2 more like it)")
    build(tmp_path / "data", replace(settings, max_bad_records=8), Workers(processes=2))
    assert found("\n".join(read_json(tmp_path / "data" / "manifest.json")["bad_records"])) == wanted
    assert found((tmp_path / "data" / "report.md").read_text()) == wanted


def test_messages_are_in_the_order_of_their_numbers() -> None:
    ordered = ["a-2, row 3: x", "a-10, row 2: x", "a-10, row 2: y", "a-10, row 10: x", "b, row 1"]
    assert shards.by_place(reversed(ordered)) == ordered
    assert shards.by_place(["f, row 01", "f, row 1"]) == shards.by_place(["f, row 1", "f, row 01"])
    assert shards.by_place(["7", "a", "9" * 9_999])[0] == "7"
