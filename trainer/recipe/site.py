"""The site's choices: OVERRIDES of slurm/site.env, which every command reads as the jobs do.

The file is bash, so bash is asked; what it loads or prints there is of no effect.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError

FILE = Path("slurm") / "site.env"
"""In the folder where the command runs: the checkout, from which jobs are submitted too."""
PLACEHOLDER = re.compile(
    r"""(?<![\w${-])(?:your[-_]\w[\w-]*|<[a-z][\w -]*>|change[-_]?me|to-?do|fix-?me|\w*x{4,}
    |(?:my|the)[-_](?:account|project|partition)|(?:account|project|partition)[-_]name)(?![\w-])""",
    re.IGNORECASE | re.VERBOSE,
)
"""What stands in a file or a command where a person's own value belongs."""
IDENTITY = ("account", "partition", "qos", "reservation", "constraint", "clusters", "mail-user")
"""sbatch's options whose values are a person's or a cluster's own."""
NOT_A_LIST = 113
ASK = f"""
bash -n "$0" || exit
module() {{ :; }}
ml() {{ :; }}
unset OVERRIDES
source "$0" >&2
[[ -z ${{OVERRIDES+x}}${{OVERRIDES[*]+x}} || $(declare -p OVERRIDES) == "declare -a"* ]] ||
    exit {NOT_A_LIST}
printf '%s\\0' site ${{OVERRIDES[@]+"${{OVERRIDES[@]}}"}}
"""
"""Prints ``site`` and the overrides, each with a zero byte behind it."""


def overrides() -> list[str]:
    """Returns the site's overrides of every recipe, ``key=value``; empty without a site file.

    Raises UserError when bash cannot read the file or OVERRIDES is no list of ``key=value``.
    """
    if not FILE.exists():
        return []
    # BASH_ENV, which module systems set, would be read first.
    variables = {name: value for name, value in os.environ.items() if name != "BASH_ENV"}
    asked = subprocess.run(
        ["bash", "-c", ASK, str(FILE.absolute())],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    marker, *words = asked.stdout.split("\0")[:-1] or [""]
    wrong = next((word for word in words if not word.partition("=")[1] or " " in _key(word)), None)
    if asked.returncode == NOT_A_LIST or wrong is not None:
        raise UserError(
            f"{FILE}: OVERRIDES must be a list of key=value"
            f"{'' if wrong is None else f', not {wrong!r}'}: write OVERRIDES=(key=value ...)"
        )
    if marker != "site":
        said = (asked.stderr.strip().splitlines() or ["it exits"])[0]
        raise UserError(f"{FILE} cannot be read: {said}: bash -x {FILE} shows where it ends")
    return words


def runs() -> Path:
    """Returns the folder of the site's runs; the recipes' default where the site names none."""
    roots = [word for word in overrides() if _key(word) == "run.root"]
    return Path(roots[-1].partition("=")[2].strip("'\"") if roots else "runs")


def placeholder(options: Mapping[str, str]) -> str | None:
    """Returns what still has to be filled in, and where, in the site file or in sbatch's
    ``options`` (by name); None if nothing has to.
    """
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    for number, line in enumerate(lines, 1):
        if found := PLACEHOLDER.search(re.sub(r"(^|\s)#.*", "", line)):
            return f"{FILE}, line {number}: put your own value in place of {found[0]}"
    for name in IDENTITY:
        if found := PLACEHOLDER.search(options.get(name, "")):
            return f"--{name}={options[name]}: put your own value in place of {found[0]}"
    return None


def _key(word: str) -> str:
    return word.partition("=")[0]
