"""Finds and reads recipe files (those in recipes/ by name, others by path) and the recipes that
each is built on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from common.errors import UserError, first_line
from common.text import nearest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
BASE, SELF = "base", "_self_"
SUFFIXES = (".yaml", ".yml")
BUILT_ON = "name the recipe that it changes, or base, in its first line: defaults: [base, _self_]"


def recipes() -> list[str]:
    """Returns the names of the recipes that can be run."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != BASE)


def find(recipe: str) -> Path:
    """Returns the file of a recipe: a name in recipes/, or the path of a file. Raises UserError
    when there is none, naming the nearest recipe.
    """
    if recipe in recipes():
        return RECIPES / f"{recipe}.yaml"
    path = Path(recipe)
    if is_path(recipe) and path.is_file():
        ours = RECIPES / path.name
        if path.resolve() == ours and path.stem != BASE:
            return ours
        if path.resolve() != ours:
            return path
    if is_path(recipe):
        fault = "is a folder" if path.is_dir() else "does not exist"
        fault = "is what all recipes are built on" if path.is_file() else fault
        raise UserError(
            f"{recipe} {fault}: give the path of a recipe's file, or a name in recipes/"
            f"{nearest(path.stem, recipes())}"
        )
    own = next((file for file in (f"{recipe}{end}" for end in SUFFIXES) if Path(file).exists()), "")
    raise UserError(
        f"no recipe {recipe!r}: recipes/ has {', '.join(recipes())}; a file of your own is given "
        "by its path, DIR/NAME.yaml"
        + (f"; did you mean {own}?" if own else nearest(recipe, recipes()))
    )


def is_path(recipe: str) -> bool:
    """Returns whether a word for a recipe is the path of a file."""
    return "/" in recipe or recipe.endswith(SUFFIXES)


def shown(path: Path) -> str:
    """Returns a recipe file's path as messages give it."""
    return f"recipes/{path.name}" if path.parent == RECIPES else str(path)


def lineage(path: Path) -> Iterator[tuple[Path, DictConfig]]:
    """Yields (file, content) of the recipes that a recipe is built on, without base, and then the
    recipe's. Raises UserError as ``read`` does, and when ``defaults`` does not lead to base.
    """
    yield from _lineage(path, ())


def read(path: Path) -> DictConfig:
    """Returns the content of a recipe file. Raises UserError, with line and column, when it is not
    YAML, and when it is not a mapping.
    """
    try:
        found: Any = OmegaConf.load(path)
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, (e.context, e.problem)))
        raise UserError(f"{shown(path)}{place}: not valid YAML: {problem}") from e
    except (YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as e:
        raise UserError(f"{shown(path)} cannot be read: {first_line(e)}") from e
    if not found and isinstance(found, DictConfig):
        raise UserError(f"{shown(path)} is empty: {BUILT_ON}")
    if isinstance(found, ListConfig):
        raise UserError(f"{shown(path)} holds a list, and a recipe is a mapping: write key: value")
    assert isinstance(found, DictConfig)
    return found


def _lineage(path: Path, below: Sequence[Path]) -> Iterator[tuple[Path, DictConfig]]:
    content = read(path)
    parents = _parents(path, content)
    for parent in parents:
        if parent == BASE:
            continue
        above = RECIPES / f"{parent}.yaml"
        if above in (path, *below):
            raise UserError(f"{shown(path)}: defaults leads back to {shown(above)}")
        yield from _lineage(above, (path, *below))
    yield path, content


def _parents(path: Path, content: DictConfig) -> list[str]:
    if "defaults" not in content:
        raise UserError(f"{shown(path)} has no defaults: {BUILT_ON}")
    plain = OmegaConf.to_container(content, resolve=False)
    assert isinstance(plain, dict)
    listed = plain["defaults"]
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise UserError(f"{shown(path)}: defaults must be a list of recipes: {BUILT_ON}")
    parents = [word for word in listed if word != SELF]
    for parent in parents:
        if parent not in (BASE, *recipes()):
            raise UserError(
                f"{shown(path)}: defaults names {parent!r}, which is not in recipes/ "
                f"({', '.join([BASE, *recipes()])}){nearest(parent, [BASE, *recipes()])}"
            )
    if not parents or listed[-1] != SELF:
        raise UserError(f"{shown(path)}: defaults must be [NAME, _self_], not {listed}: {BUILT_ON}")
    return parents
