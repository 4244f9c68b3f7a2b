"""Commands of ```bash blocks run, in the order of their page, beside a finished tiny run. They end
with the exit code that the page says, and print what it shows; numbers may differ.
"""

import io
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.conftest import ROOT, Line
from tests.docs.markdown import Block, blocks, label
from warmstart.cli import main

RUN, OUTPUT = "bash", "text"
SHELL = ("echo", "mv")
"""Commands of others that a block may run; the pages' own are ``warmstart``."""
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.name != "bring-your-own.md"  # has its own test
    and any(block.language == RUN for block in blocks(page))
]


@pytest.fixture
def folder(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run and its dataset; commands run in it."""
    for name in ("data", "runs"):
        shutil.copytree(line.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_commands_do_what_the_page_shows(page: Path, folder: Path) -> None:
    there = list(blocks(page))
    for block, following in zip(there, [*there[1:], None], strict=True):
        if block.language != RUN:
            continue
        output = following if following and following.language == OUTPUT else None
        code, printed = run(block)
        assert code == said_code(block, output), printed
        assert output is None or is_shown(output.text, printed), f"{output.text}\n{printed}"


def test_most_pages_run_something() -> None:
    assert len(PAGES) >= 7
    assert sum(block.language == RUN for page in PAGES for block in blocks(page)) >= 15


def run(block: Block) -> tuple[int, str]:
    """Runs a block's commands; returns the last one's exit code and output."""
    code, printed = 0, io.StringIO()
    for text in block.text.splitlines():
        assert code == 0, f"{text}: a command before it failed\n{printed.getvalue()}"
        words, printed = shlex.split(text), io.StringIO()
        if words[0] == "warmstart":
            with redirect_stdout(printed), redirect_stderr(printed):
                code = main(words[1:])
        else:
            assert words[0] in SHELL, f"{text}: blocks that are not run are ```sh"
            code = subprocess.run(["bash", "-c", text]).returncode
    return code, printed.getvalue()


def said_code(block: Block, output: Block | None) -> int:
    """Returns the exit code that the text around the block says, 0 if it says none."""
    after = output.exit_code if output else None
    return next((code for code in (after, block.exit_code) if code is not None), 0)


def loose(text: str) -> str:
    """Returns the text with a 0 for each number, and without identifiers, daggers and padding."""
    text = re.sub(r"\b[0-9a-f]{16}\b|-[0-9a-f]{8}\b", "", text.replace("†", ""))
    text = re.sub(r"\d[\d,]*(\.\d+)?", "0", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def is_shown(shown: str, printed: str) -> bool:
    """Returns whether a page shows what was printed; a line of three dots stands for others."""
    parts = re.split(r"^\.\.\.$", loose(shown), flags=re.MULTILINE)
    return re.fullmatch(".*".join(map(re.escape, parts)), loose(printed), re.DOTALL) is not None
