"""Reads the arguments of a job script: sbatch's options in any form and order, and the words for
the recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.errors import UserError


def _table(text: str) -> dict[str, str]:
    return dict(word.partition("/")[::2] for word in text.split())


VALUED = _table("""
    account/A acctg-freq array/a batch bb bbf begin/b chdir/D cluster-constraint clusters/M comment
    constraint/C container container-id core-spec/S cores-per-socket cpu-freq cpus-per-gpu
    cpus-per-task/c deadline delay-boot dependency/d distribution/m error/e exclude/x export
    export-file extra extra-node-info/B gid gpu-bind gpu-freq gpus/G gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint input/i job-name/J kill-on-invalid-dep licenses/L mail-type
    mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile/F nodelist/w
    nodes/N ntasks/n ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode
    output/o partition/p power prefer priority profile qos/q reservation segment signal
    sockets-per-node switches thread-spec threads-per-core time/t time-min tmp tres-bind
    tres-per-task uid wait-all-nodes wckey
    """)
"""sbatch's options that take a value, with their letters."""
OPTIONAL = dict.fromkeys(("exclusive", "get-user-env", "nice", "oom-kill-step", "propagate"), "")
OPTIONAL["no-kill"] = "k"
"""Options whose value, if any, follows an equals sign."""
FLAGS = _table("""
    contiguous dry-run help/h hold/H ignore-pbs no-requeue overcommit/O oversubscribe/s parsable
    quiet/Q reboot requeue spread-job stepmgr test-only use-min-nodes verbose/v wait/W
    """)
"""Options without a value; the scripts themselves understand ``--dry-run`` and ``--help``."""
NAMES = VALUED | OPTIONAL | FLAGS
LETTERS = {letter: name for name, letter in NAMES.items() if letter}
DRY_RUN, HELP = "dry-run", "help"


@dataclass(frozen=True)
class Given:
    """The arguments of a job script."""

    options: list[tuple[str, str | None]]
    """sbatch's options by their long names, in order; None for an option without a value."""
    words: list[str]
    """The other arguments, in order."""
    dry_run: bool
    help: bool

    @property
    def lines(self) -> list[str]:
        """The options as sbatch reads them, such as ``--nodes=2``."""
        return [f"--{name}" if value is None else f"--{name}={value}" for name, value in self]

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        return iter(self.options)


def parse(arguments: Sequence[str], known: bool = True) -> Given:
    """Returns the arguments as options and words; after ``--`` all are words.

    Raises UserError for a missing value, for a value that an option does not take and, if
    ``known``, for an option that sbatch does not have (sites can add options to sbatch).
    """
    options: list[tuple[str, str | None]] = []
    words: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            words += rest
            break
        if argument.startswith("--"):
            options.append(_long(argument, rest, known))
        elif argument.startswith("-"):
            options += _short(argument, rest)
        else:
            words.append(argument)
    names = {name for name, _ in options}
    own = [(name, value) for name, value in options if name not in (DRY_RUN, HELP)]
    # Also after ``--``: whoever writes it anywhere means that no job starts.
    dry_run = DRY_RUN in names or f"--{DRY_RUN}" in words
    return Given(own, [w for w in words if w != f"--{DRY_RUN}"], dry_run, HELP in names)


def _long(argument: str, rest: list[str], known: bool) -> tuple[str, str | None]:
    name, equals, value = argument.removeprefix("--").partition("=")
    if name not in NAMES and known:
        raise _unknown(f"--{name}", [f"--{other}" for other in NAMES])
    if name in FLAGS and equals:
        raise UserError(f"--{name} takes no value: leave out ={value}")
    if name in VALUED and not equals:
        value = _value(f"--{name}", rest)
    return name, value if equals or name in VALUED else None


def _short(argument: str, rest: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yields the options of one argument: letters without a value may be combined, as in
    ``-HN2``.
    """
    letters = argument[1:]
    while letters or argument == "-":
        name = LETTERS.get(letters[:1])
        if name is None:
            raise _unknown(f"-{letters[:1]}", [])
        letters = letters[1:]
        if name in VALUED:
            yield name, letters or _value(argument, rest)
            return
        yield name, None


def _value(option: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("-"):
        raise UserError(f"{option} needs a value: {option} VALUE")
    return rest.pop(0)


def _unknown(option: str, known: Sequence[str]) -> UserError:
    close = difflib.get_close_matches(option, known, n=1, cutoff=0.6)
    nearest = f"; did you mean {close[0]}?" if close else ""
    return UserError(f"sbatch has no option {option}{nearest} (--help)")
