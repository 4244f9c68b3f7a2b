"""The site's settings: OVERRIDES of slurm/site.env, which every command and every job reads, and
the file's other lists.

The file is bash, so bash evaluates it; modules that it loads have no effect here, and its output
goes to stderr.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError

FILE = Path("slurm") / "site.env"
"""Relative to the folder where the command runs: the checkout, from which jobs are
submitted too.
"""
PLACEHOLDER = re.compile(
    r"""(?<![\w${-])(?:your[-_]\w[\w-]*|<[a-z][\w -]*>|change[-_]?me|to-?do|fix-?me|\w*x{4,}
    |(?<!/)(?:(?:my|the)[-_](?:account|project|partition)|(?:account|project|partition)[-_]name)
    )(?![\w-])""",
    re.IGNORECASE | re.VERBOSE,
)
"""Placeholders in a file or a command that the user must replace."""
IDENTITY = ("account", "partition", "qos", "reservation", "constraint", "clusters", "mail-user")
"""sbatch's options whose values depend on the user or the cluster."""
NOT_A_LIST = 113
ASK = f"""
bash -n "$0" || exit
module() {{ :; }}
ml() {{ :; }}
unset LIST
source "$0" >&2
[[ -z ${{LIST+x}}${{LIST[*]+x}} || $(declare -p LIST) == "declare -a"* ]] || exit {NOT_A_LIST}
printf '%s\\0' site ${{LIST[@]+"${{LIST[@]}}"}}
"""
"""Prints ``site`` and the words of the list LIST, each followed by a zero byte."""


def overrides() -> list[str]:
    """Returns the site's overrides of every recipe, ``key=value``; empty without a site file.

    Raises UserError when bash cannot read the file or OVERRIDES is not a list of ``key=value``.
    """
    form = "key=value"
    found = words("OVERRIDES", form)
    wrong = next((word for word in found if not word.partition("=")[1] or " " in _key(word)), None)
    if wrong is not None:
        raise UserError(_no_list("OVERRIDES", form, f", not {wrong!r}"))
    return found


def words(name: str, form: str = "WORD") -> list[str]:
    """Returns the words of the site's list ``name``, such as SRUN_OPTIONS; empty without it.

    Raises UserError when bash cannot read the file or when ``name`` is a text, not a list.
    """
    if not FILE.exists():
        return []
    # BASH_ENV, which module systems set, would be read first.
    variables = {key: value for key, value in os.environ.items() if key != "BASH_ENV"}
    asked = subprocess.run(
        ["bash", "-c", ASK.replace("LIST", name), str(FILE.absolute())],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    marker, *found = asked.stdout.split("\0")[:-1] or [""]
    if asked.returncode == NOT_A_LIST:
        raise UserError(_no_list(name, form))
    if marker != "site":
        said = (asked.stderr.strip().splitlines() or ["it exits"])[0]
        raise UserError(f"{FILE} cannot be read: {said}: bash -x {FILE} shows where it ends")
    return found


def runs() -> Path:
    """Returns the folder of the site's runs; the recipes' default if the site sets none."""
    roots = [word for word in overrides() if _key(word) == "run.root"]
    return Path(roots[-1].partition("=")[2].strip("'\"") if roots else "runs")


def placeholder(options: Mapping[str, str]) -> str | None:
    """Returns which placeholder still has to be replaced, and where, in the site file or in
    sbatch's ``options`` (by name); None if there is none.
    """
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    for number, line in enumerate(lines, 1):
        if found := PLACEHOLDER.search(re.sub(r"(^|\s)#.*", "", line)):
            return f"{FILE}, line {number}: put your own value in place of {found[0]}"
    for name in IDENTITY:
        if found := PLACEHOLDER.search(options.get(name, "")):
            return f"--{name}={options[name]}: put your own value in place of {found[0]}"
    return None


def _no_list(name: str, form: str, found: str = "") -> str:
    return f"{FILE}: {name} must be a list of {form}{found}: write {name}=({form} ...)"


def _key(word: str) -> str:
    return word.partition("=")[0]
