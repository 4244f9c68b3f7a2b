"""The hooks of .pre-commit-config.yaml: they check what `make lint` checks, and find planted
faults.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS = {hook["id"]: hook for hook in yaml.safe_load(CONFIG.read_text())["repos"][0]["hooks"]}
TOKEN = "hf_" + "Ab" * 17
"""Looks like a hub token. It is written in two parts so that the hook does not find it here."""

needs_pre_commit = pytest.mark.skipif(
    importlib.util.find_spec("pre_commit") is None,
    reason="THE COMMIT HOOKS ARE NOT TESTED: pre-commit is missing in this environment: make setup",
)


def pre_commit(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *words],
        cwd=folder,
        env=os.environ | {"PRE_COMMIT_HOME": str(folder / ".git" / "pre-commit"), "SKIP": "mypy"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """An empty repository with the project's hooks, settings and environment."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for name in (CONFIG.name, "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def staged(folder: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Adds files to the index and runs the hooks over it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["git", "add", "--force", CONFIG.name, *files], cwd=folder, check=True)
    return pre_commit("run", folder=folder)


def failed(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^- hook id: (\S+)$", done.stdout, re.MULTILINE))


@needs_pre_commit
@pytest.mark.parametrize(
    ("hook", "name", "text"),
    [
        ("ruff-check", "eval/a.py", "import os\n"),
        ("ruff-format", "eval/a.py", "a = (1)\n"),
        ("shellcheck", "tools/a.sh", "#!/bin/bash\ncd $1\n"),
        ("large-files", "tests/a.bin", "0" * 700_000),
        ("secrets", "docs/a.md", f"HF_TOKEN={TOKEN}\n"),
        ("local-files", "runs/a/report.md", "a\n"),
    ],
)
def test_a_planted_fault_is_found_by_its_hook_alone(
    clone: Path, hook: str, name: str, text: str
) -> None:
    done = staged(clone, {name: text})
    assert failed(done) == {hook}, done.stdout + done.stderr


@needs_pre_commit
def test_a_link_to_an_environment_is_refused_and_clean_files_are_not(clone: Path) -> None:
    clean = {"eval/a.py": '"""A module."""\n', "tools/a.sh": '#!/bin/bash\ncd "$1" || exit\n'}
    done = staged(clone, clean)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["git", "add", "--force", ".venv"], cwd=clone, check=True)
    assert failed(pre_commit("run", folder=clone)) == {"local-files"}


def test_hooks_and_make_lint_run_the_same_tools() -> None:
    made = subprocess.run(
        ["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    of_make = set(re.findall(r"\.venv/bin/(\S+(?: check| format)?)", made.stdout))
    of_hooks = {
        found[1]
        for hook in HOOKS.values()
        if (found := re.match(r"\.venv/bin/(\S+(?: check| format)?)", hook["entry"]))
    }
    assert of_make == of_hooks == {"ruff check", "ruff format", "mypy", "shellcheck"}


def test_every_file_of_the_project_passes_the_simple_hooks() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = listed.stdout.splitlines()
    token = re.compile(HOOKS["secrets"]["entry"])
    assert token.search(TOKEN)
    texts = {n: (ROOT / n).read_bytes().decode(errors="replace") for n in names}
    assert [n for n, text in texts.items() if token.search(text)] == []
    assert [n for n in names if re.search(HOOKS["local-files"]["files"], n)] == []


def test_ci_lints_before_it_tests() -> None:
    assert re.findall(r"make (\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "lint",
        "test",
    ]
