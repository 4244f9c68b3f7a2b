"""An average of the line's checkpoints, evaluated and compared with its members."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Line, warmstart


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_average_is_evaluated_and_compared_with_its_members(line: Line, tmp_path: Path) -> None:
    """In a copy, so that the line has no other evaluations than its own."""
    folder = tmp_path / "line"
    shutil.copytree(line.folder, folder)
    run = folder / "runs" / "tiny"
    steps = sorted(int(p.name.removeprefix("step_")) for p in (run / "checkpoints").glob("step_*"))
    first, last = steps[-2:]
    warmstart("export", "tiny", "--average", f"{first},{last}", folder=folder)
    warmstart("export", "tiny", str(first), folder=folder)
    for word in (str(first), f"avg-{first}-{last}"):
        warmstart("eval", "tiny", word, folder=folder)
    average = f"tiny@avg-{first}-{last}"
    done = warmstart("compare", average, f"tiny@{first}", f"tiny@{last}", folder=folder)
    for step in (first, last):
        assert f"## A = tiny@avg_{first}_{last}, B = tiny@step_{step}" in done.stdout
    warmstart("report", "tiny", folder=folder)
    report = (run / "report.md").read_text()
    assert f"SFT (step_{last})" in report.split("\n\n")[1]
    for step in (first, last):
        assert re.search(rf"\| avg_{first}_{last}, step_{step}, heldout \(40 problems\) \|", report)
    card = (run / "export" / f"avg_{first}_{last}" / "README.md").read_text()
    assert "These weights were never trained" in card and "Pending" not in card
