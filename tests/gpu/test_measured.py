"""docs/measured.md is what its files say."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.gpu import rows
from tests.gpu.cases import CASES
from tests.gpu.measured import NOTHING, page

RUN: dict[str, Any] = {
    "device": "NVIDIA H200",
    "memory": 140 * 2**30,
    "driver": "580",
    "cuda": "13.0",
    "nccl": "2.28",
    "python": "3.12.3",
    "torch": "2.11.0",
    "packages": {"verl": "0.9.1"},
    "commit": "abc",
    "date": "2026-12-01T10:00:00Z",
    "mode": "short",
    "layers": 12,
    "length": 8192,
}


def write(path: Path, *made: rows.Row, closed: bool = True, **run: Any) -> Path:
    rows.append(path, {rows.RUN: RUN | run})
    for row in made:
        rows.put(path, row)
    if closed:
        rows.append(path, {rows.CLOSING: rows.read(path).counts()})
    return path


def test_the_committed_page_is_that_of_the_committed_files() -> None:
    files = sorted((ROOT / "docs" / "measured").glob("*.jsonl"))
    assert (ROOT / "docs" / "measured.md").read_text() == page(files)


def test_without_files_every_case_was_never_measured() -> None:
    written = page([])
    assert NOTHING in written
    assert [f"- {case.name}: {case.about}" in written for case in CASES] == [True] * len(CASES)


def test_a_file_has_its_device_and_every_row_beside_the_peer(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h200.jsonl",
        rows.figure("ours", "tokens/s", "1/s", 30_000.0),
        rows.figure("verl", "tokens/s", "1/s", 30_000.0, peer=20_000.0, peer_name="stock verl"),
        rows.figure("attention", "dq", "relative error", 0.5, limit=0.02),
        rows.Row("turns", "case", status=rows.SKIPPED, note="vllm is not installed"),
    )
    written = page([path])
    assert (
        "## NVIDIA H200, 2026-12-01" in written
        and "Commit abc" in written
        and NOTHING not in written
    )
    assert "| ours | tokens/s | 30,000 1/s |  |  |  |  |" in written
    assert "| verl | tokens/s | 30,000 1/s | 20,000 (stock verl) | 1.500 |  |  |" in written
    assert "| attention | dq | 0.5 relative error |  |  | 0.02 | **failed** |" in written
    assert "| turns | case |  |  |  |  | skipped: vllm is not installed |" in written
    assert "2 passed, 1 failed, 1 skipped" in written and "ended early" not in written
    assert "- verl:" not in written and "- turns:" in written


def test_the_newest_check_is_first_and_one_that_was_ended_says_so(tmp_path: Path) -> None:
    old = write(tmp_path / "a.jsonl", device="NVIDIA H100", date="2026-11-30T10:00:00Z")
    new = write(tmp_path / "b.jsonl", closed=False)
    written = page([old, new])
    assert written.index("NVIDIA H200") < written.index("NVIDIA H100")
    assert written.count("ended early") == 1


def test_a_rehearsal_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rehearsal"):
        page([write(tmp_path / "a.jsonl", mode="rehearsal")])


@pytest.mark.parametrize("text", ["[1]\n", "{\n", '{"case": "ours"}\n', ""])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        page([path])
