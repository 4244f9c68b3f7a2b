"""Links, anchors, files and names that the pages mention exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.docs.markdown import FOLDERS, PAGES, anchors, blocks, code, label, links

EXTENSIONS = "py|md|yaml|sh|env|txt|toml|def|png|jinja|cfg"
FILE = re.compile(rf"(?:[\w.-]+/)*[\w.-]+\.(?:{EXTENSIONS})|Makefile")
"""Looks like a file."""
PACKAGES = tuple(name for name in (*FOLDERS, "warmstart") if name not in ("docs", "tests"))
BASE = OmegaConf.load(ROOT / "recipes" / "base.yaml")
GROUPS = [name for name in BASE if OmegaConf.is_dict(BASE._get_node(name)) and name != "verl"]
MODULES, DOTTED = (
    re.compile(rf"(?:{'|'.join(heads)})(?:\.\w+)+") for heads in (PACKAGES, [*PACKAGES, *GROUPS])
)
"""Look like a module or a name in one; and like one of these or a key of a recipe."""
FORMATS = ROOT / "docs" / "file-formats.md"
"""Has fields of files, which may look like a recipe's keys."""
WRITTEN = {
    *("slurm/site.env", "report.md", "README.md", "config.yaml", "rehearsal.log", "run_grpo.sh"),
    *("loss.png", "tokens.png", "reward.png", "checkpoints.png", "chars.png"),
}
"""Files that a person or a command writes."""
every_page = pytest.mark.parametrize("page", PAGES, ids=label)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


@every_page
def test_files_in_backticks_exist(page: Path) -> None:
    assert [text for text in code(page) if FILE.fullmatch(text) and not _exists(text, page)] == []


@every_page
def test_names_in_backticks_are_modules_or_keys(page: Path) -> None:
    names = DOTTED if page != FORMATS else MODULES
    assert [text for text in code(page) if names.fullmatch(text) and not _is_named(text)] == []


def test_every_page_of_docs_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= set(links(index))


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs").rglob("*.png"))
    assert pictures and all(path.stat().st_size < 300_000 for path in pictures)


def test_pages_are_short() -> None:
    lengths = {p: len(p.read_text("utf-8").splitlines()) for p in PAGES}
    assert lengths[ROOT / "README.md"] <= 200
    long = {p.name for p, n in lengths.items() if n > 260 and p.parent.name == "docs"}
    # A reference, and a walk with its files and all that it prints.
    assert long <= {FORMATS.name, "bring-your-own.md"}


def _exists(text: str, page: Path) -> bool:
    """Returns whether the project has the file: by its path, or by its name alone; a name in
    capitals stands for any.
    """
    if text in WRITTEN | {block.saved for block in blocks(page)} or re.search(
        r"\bNAME\b|\bN\b", text
    ):
        return True
    if "/" not in text:
        return text in _names() or (page.parent / text).exists()
    return (ROOT / text).exists() or text.partition("/")[0] not in FOLDERS


@cache
def _names() -> set[str]:
    below = (path.name for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file())
    return {*below, *(path.name for path in ROOT.iterdir())}


def _is_named(text: str) -> bool:
    """Returns whether the text is a key of recipes/base.yaml, a room, a module, or in a module."""
    parts = text.split(".")
    group = OmegaConf.select(BASE, ".".join(parts[:-1]))
    if (OmegaConf.is_dict(group) and parts[-1] in list(group)) or ROOT.joinpath(*parts).is_dir():
        return True
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if module.exists():
            return _defines(ast.parse(module.read_text(encoding="utf-8")), parts[length:])
    return False


def _defines(node: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    """Returns whether the names lead from a module or class to a function, class or constant."""
    if not names:
        return True
    for child in node.body:
        if isinstance(child, ast.ClassDef) and child.name == names[0]:
            return _defines(child, names[1:])
        function = isinstance(child, ast.FunctionDef) and child.name == names[0]
        constant = isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == names[0]
        if function or constant:
            return len(names) == 1
    return False
