"""Commands in the pages are ones that the parser, the Makefile and the job scripts know, with
recipes and keys that exist. Blocks that ``test_run`` runs are left to it.
"""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.docs.markdown import PAGES, blocks, code, commands, label
from trainer.recipe.files import recipes
from warmstart.cli import OVERRIDES, RECIPE, VERBS, _parse

KEY = re.compile(r"([a-z_][\w.]*)=(.*)", re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASE = OmegaConf.load(ROOT / "recipes" / "base.yaml")
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROGRAMS = ("warmstart", "make", "sbatch", "bash", "python", "slurm/")
"""Text in backticks that begins with one of these is a whole command."""


def written(page: Path) -> list[list[str]]:
    """Returns the words of every command of the page, of blocks and of backticks."""
    found = [words for b in blocks(page) if b.language == "sh" for words in commands(b.text)]
    for text in code(page):
        text = re.sub(r"(?<!\S)\[([^\]]*)\](?!\S)", r"\1", text)  # an optional word
        if " " in text and re.sub(r"^([A-Z_]+=\S* )*", "", text).startswith(PROGRAMS):
            found += commands(text)
    return found


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_commands_are_known(page: Path) -> None:
    for words in written(page):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_keys_in_backticks_are_a_recipes(page: Path) -> None:
    groups = "|".join(name for name in BASE if OmegaConf.is_dict(BASE._get_node(name)))
    for text in code(page):
        words = text.split("; ")[0].split(" ", 1) if re.match(rf"({groups})\.[\w.]+=", text) else []
        check_keys([word for word in words if KEY.fullmatch(word)])


def test_there_are_commands_to_check() -> None:
    found = [words for page in PAGES for words in written(page)]
    assert len(found) > 200
    assert {words[1] for words in found if words[0] == "warmstart"} == set(VERBS)


def test_the_readme_lists_every_recipe() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == set(recipes())


def check(words: list[str]) -> None:
    """Checks a command by its program."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "warmstart":
        check_warmstart(rest)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS, words
    elif program == "sbatch" or program.startswith("slurm/"):
        check_script(rest if program == "sbatch" else words)
    elif program in ("python", "bash"):
        check_program(rest)
    else:
        for word in rest:
            if word.startswith(("slurm/", "tools/", "recipes/", "docs/")):
                assert (ROOT / word).exists() or word == "slurm/site.env", words


def check_warmstart(words: list[str]) -> None:
    """Parses the words, and checks their recipe and keys. A verb with options alone is no whole
    command.
    """
    if words[0] in VERBS and all(word.startswith("-") for word in words[1:]):
        names = {name for options, _ in VERBS[words[0]][1] for name in options}
        assert names >= set(words[1:]), words
        return
    function, arguments = _parse([re.sub(r"^[IN]$", "0", word) for word in words])
    assert function is VERBS[words[0]][0]
    keys, recipe = arguments.get("overrides", []), arguments.get("recipe")
    assert not keys or OVERRIDES in VERBS[words[0]][1]
    if recipe is not None and RECIPE[0] in VERBS[words[0]][1]:
        check_recipe(recipe)
    check_keys(keys)


def check_script(words: list[str]) -> None:
    """Checks a job script, the recipe that it is given, and the keys after it."""
    scripts = [i for i, word in enumerate(words) if word.startswith("slurm/")]
    if not scripts:  # options alone
        assert all(word.startswith("-") for word in words), words
        return
    name, *rest = words[scripts[0] :]
    assert (ROOT / name).exists(), name
    if name.endswith("data.sh") and rest:
        check_recipe(rest[0])
    keys = [word for word in rest if KEY.fullmatch(word)]
    for word in keys:
        if word.startswith("recipe="):
            check_recipe(word.removeprefix("recipe="))
    if not name.endswith("rl.sh"):  # its keys are verl's
        check_keys([word for word in keys if not word.startswith("recipe=")])


def check_program(words: list[str]) -> None:
    """Checks that ``python -m MODULE``, ``python FILE`` or ``bash FILE`` is of the project."""
    name = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
    if name.split("/")[0] not in ("runs", "RUN", "pip.py", "pytest.py"):
        assert (ROOT / name).exists() or (ROOT / name.removesuffix(".py")).is_dir()


def check_recipe(word: str) -> None:
    """A word in capitals stands for any recipe, and a path for a file of one's own."""
    assert word in recipes() or not re.fullmatch(r"\w+", word) or word.isupper()


def check_keys(words: list[str]) -> None:
    """Keys are in recipes/base.yaml, and what is not text there has a value of its kind."""
    for word in words:
        match = KEY.fullmatch(word)
        assert match, word
        parent, _, last = match[1].rpartition(".")
        group = OmegaConf.select(BASE, parent) if parent else BASE
        known = OmegaConf.is_dict(group) and last in list(group)  # also a key without a default
        assert known or match[1].startswith("verl.") or word == "key=value", word
        if known and isinstance(group._get_node(last)._value(), bool):
            assert match[2] in ("true", "false"), word
