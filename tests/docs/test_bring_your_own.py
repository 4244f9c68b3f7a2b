"""The tutorial on own data does what it says: its files and commands, word for word and in order,
in a shell that starts in a checkout with a finished tiny run.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.conftest import ROOT, Line, environment, lines
from tests.docs.markdown import Block, blocks
from tests.docs.test_run import OUTPUT, RUN, is_shown, said_code

PAGE = ROOT / "docs" / "bring-your-own.md"
WAITING = re.compile(r"^(?!step ).*\b\d+:\d\d:\d\d\n", re.MULTILINE)
"""A line that says for how long something is waited for; how many there are depends on the machine.
"""
NOT_RUN = "sh"
"""Language of what needs a hub or a cluster."""


@dataclass(frozen=True)
class Step:
    """Commands of the page, what it shows of them, and what they did."""

    block: Block
    shown: Block | None
    printed: str
    code: int


@dataclass(frozen=True)
class Walk:
    """The page's commands, and the folder that they made."""

    steps: list[Step]
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "reverse"

    def total(self, label: str) -> dict:
        (folder,) = self.run.glob(f"evals/*@{label}-*")
        return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def walk(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The whole page in one shell, in what its reader has: a checkout after the quickstart."""
    home = tmp_path_factory.mktemp("own")
    checkout, out = home / "warmstart", home / "out"
    out.mkdir()
    shutil.copytree(line.folder / "runs", checkout / "runs")
    activate = checkout / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    there = list(blocks(PAGE))
    script = [part for n, block in enumerate(there) for part in as_script(n, block, out)]
    # A cache of the hub that has no model, and no hub.
    offline = {"HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1"}
    command = ["bash", "-c", "\n".join(script)]
    subprocess.run(command, cwd=checkout, env=environment() | offline, check=True)
    return Walk(list(steps(there, out)), home / "reverse")


def as_script(number: int, block: Block, out: Path) -> Iterator[str]:
    """Yields the shell's words that save a block as a file or run it, with its output and exit code
    in ``out``.
    """
    if block.saved:
        yield f"cat > {block.saved} <<'END OF FILE'\n{block.text}END OF FILE"
    elif block.language == RUN:
        yield f"exec > {out / str(number)} 2>&1\n{block.text}echo $? > {out / str(number)}.code"


def steps(there: list[Block], out: Path) -> Iterator[Step]:
    for number, (block, following) in enumerate(zip_longest(there, there[1:])):
        if block.language == RUN:
            shown = following if following and following.language == OUTPUT else None
            code = int((out / f"{number}.code").read_text())
            printed = WAITING.sub("", (out / str(number)).read_text())
            yield Step(block, shown, printed, code)


def test_every_block_is_a_file_or_runs_or_shows_output() -> None:
    there = list(blocks(PAGE))
    saved = [block.saved for block in there if block.saved]
    assert saved == ["make_data.py", "reverse.yaml", "reverse_4b.yaml"]
    rest = [block.language for block in there if not block.saved]
    assert set(rest) == {RUN, OUTPUT, NOT_RUN} and rest.count(NOT_RUN) == 2


def test_every_command_ends_and_prints_as_the_page_says(walk: Walk) -> None:
    for step in walk.steps:
        told = f"$ {step.block.text}{step.printed}"
        assert step.code == said_code(step.block, step.shown), told
        assert step.shown is None or is_shown(step.shown.text, step.printed), told


def test_the_funnel_is_the_pages(walk: Walk) -> None:
    manifest = json.loads((walk.folder / "data/reverse/manifest.json").read_text())
    assert {step: n for step, n in manifest["funnel"].items() if n} == {
        "source records": 1565,
        "dropped: no user's and assistant's turn at the end": 1,
        "dropped: no boxed answer": 1,
        "dropped: same row twice": 3,
        "dropped: in a benchmark": 2,
        "kept: train": 1538,
        "kept: test": 20,
    }
    five = {row["id"] for row in lines(walk.folder / "reverse5.jsonl")}
    assert {found["id"] for found in manifest["contaminated"].values()} < five


def test_five_problems_do_not_show_the_gain_and_twenty_more_do(walk: Walk) -> None:
    before, after = walk.total("base"), walk.total("step_98")
    assert before["total"]["pass@1"] == 0.0 and after["total"]["pass@1"] >= 0.8
    report = (walk.run / "report.md").read_text()
    row = r"^\| (\w+) \(.*\[([-+][\d.]+), [-+][\d.]+\]†? \|$"
    # The first table with a row of that name is the headline.
    lower = {name: float(end) for name, end in reversed(re.findall(row, report, re.M))}
    assert lower["reverse5"] < 0 < lower["heldout"] < lower["all"]
    assert (walk.run / "report.html").exists()
    assert len(lines(next(walk.run.glob("evals/*@base-*/rollouts.jsonl")))) == 25 * 8
