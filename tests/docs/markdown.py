"""Reads the project's Markdown: links, headings, code and the commands in it.

A block fenced as ```bash is run by ``test_run``, and a ```text block after it is what its last
command prints. Commands of ```sh blocks are only parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import ROOT

FOLDERS = ("common", "data_prep", "docs", "eval", "recipes", "slurm", "tests", "tools", "trainer")
GOLDEN = ROOT / "tests" / "eval" / "card" / "golden"
"""Model cards that a test compares with the card's code: no pages."""
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*.md"))]
    if not path.is_relative_to(GOLDEN)
)
_SLUG = re.compile(r"[^\w\- ]")
_SAVED = re.compile(r"Save this as `([\w.]+)`:$")
_CODES = re.compile(r"exits? (?:with )?code (\d+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line in the page, the text before it."""

    language: str
    text: str
    line: int
    before: str

    @property
    def saved(self) -> str | None:
        """The file that the reader makes of the block; None if the text before it names none."""
        found = _SAVED.search(self.before)
        return found[1] if found else None

    @property
    def exit_code(self) -> int | None:
        """The last exit code that the text before it says."""
        codes = _CODES.findall(self.before)
        return int(codes[-1]) if codes else None


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[Token]:
    """Yields the parts of the page's paragraphs, headings and cells."""
    for token in tokens(page):
        yield from token.children or ()


def blocks(page: Path) -> Iterator[Block]:
    before = ""
    for token in tokens(page):
        if token.type == "inline":
            before = token.content
        elif token.type == "fence":
            assert token.map
            yield Block(token.info.strip(), token.content, token.map[0] + 1, before)
            before = ""


def code(page: Path) -> list[str]:
    """Returns the page's code in backticks. A cell of a table has ``\\|`` for ``|``."""
    return [t.content.replace("\\|", "|") for t in inline(page) if t.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Returns the targets of the page's links and pictures."""
    found = [str(t.attrGet("href") or t.attrGet("src") or "") for t in inline(page)]
    return [target for target in found if target]


@cache
def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives the page's headings."""
    titles = [
        "".join(part.content for part in following.children or ())
        for token, following in zip(tokens(page), tokens(page)[1:], strict=False)
        if token.type == "heading_open"
    ]
    return {_SLUG.sub("", title.lower()).replace(" ", "-") for title in titles}


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of a shell block's commands, without comments and variables before them."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


def label(page: Path) -> str:
    """Returns the page's name for a test's id."""
    return str(page.relative_to(ROOT))
