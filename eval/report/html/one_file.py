"""The parts and the policy of a page that is a single file, opens from disk and makes no network
request.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def source(name: str) -> str:
    """Returns the text of a file of this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str | None = None) -> str:
    """Returns the Content-Security-Policy that allows this style and script and nothing else."""
    scripts = "" if script is None else f"script-src '{_hash(script)}'; "
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; {scripts}base-uri 'none'; form-action "
        "'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
