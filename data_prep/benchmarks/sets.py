"""Reads benchmark problems from a folder of ``<set>.jsonl`` files.

Evaluation uses the problems; decontamination keeps their texts out of training.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, first_line
from common.files import read_jsonl, sha256_file, write_jsonl
from common.records import LONE_SURROGATE, Problem
from common.text import nearest, plain_number
from data_prep.answers.normalise import normalise
from data_prep.benchmarks.known import ANYTHING, BENCHMARKS

TOTAL = "total"
"""Name of all sets together in results; no set may have it."""
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
"""Pattern of a set's name, which is used in paths and tables."""
LINE = ("id", "problem", "answer", "earlier")
"""Keys of a problem's line; the last is optional."""


@dataclass(frozen=True)
class Suite:
    """Benchmark sets that are evaluated together, and the protocol of their published figures."""

    sets: tuple[str, ...]
    rollouts: int = 16
    temperature: float = 0.6


SUITES = {
    "t0": Suite(("aime2025", "aime2026", "amc2023")),
    "gsm8k": Suite(("gsm8k_test",), rollouts=1, temperature=0.0),
}
"""Names of several sets or of a protocol. Every other name is a suite of one set with the default
protocol.
"""


def expand(names: Sequence[str]) -> list[str]:
    """Returns the sets that these names of suites and sets mean, in order and without
    repetition.
    """
    return list(dict.fromkeys(name for suite in names for name in _suite(suite).sets))


def protocol(
    names: Sequence[str], rollouts: int | None, temperature: float | None
) -> tuple[int, float]:
    """Returns (rollouts per problem, temperature; 0 is greedy) for suites and sets. Given values
    override the suites'.

    Raises UserError when two suites differ in a value that is not given.
    """
    suites = [_suite(name) for name in names]
    chosen: list[float] = []
    for key, given in (("rollouts", rollouts), ("temperature", temperature)):
        values = {getattr(suite, key) for suite in suites} if given is None else {given}
        if len(values) > 1:
            raise UserError(
                f"eval.sets=[{', '.join(names)}] have different {key} "
                f"({', '.join(map(str, sorted(values)))}): evaluate them separately, or set "
                f"eval.{key}"
            )
        chosen += values
    return int(chosen[0]), float(chosen[1])


def load(folder: Path, sets: list[str], limit: int | None, key: str = "eval.sets") -> list[Problem]:
    """Returns the problems of each set in file order: the first ``limit`` of each set, or all if
    None. ``sets`` may name suites; ``key`` is the recipe's key that names them.

    Raises UserError naming the place and the fix for a missing file, for what ``load_file``
    rejects, and for a count or an answer that does not fit the benchmark.
    """
    if not sets or len(set(sets)) < len(sets):
        raise UserError(f"{key}={sets} must name at least one set, and each only once")
    if limit is not None and limit < 1:
        raise UserError(f"eval.limit must be positive or null, not {limit}")
    return [
        problem
        for name in expand(sets)
        for problem in _load_set(_file(folder, name, key), name)[:limit]
    ]


def load_file(path: Path, name: str, answers: re.Pattern[str] = ANYTHING) -> list[Problem]:
    """Returns the problems of one file in file order, with ``name`` as their set.

    An id and an answer may be numbers. Raises UserError naming the line for an empty file, a
    missing, blank or non-text value, earlier turns that are not messages, a lone surrogate, an id
    used twice, or an answer that does not match ``answers``.
    """
    problems: dict[str, Problem] = {}
    keys = ("id", "problem", "answer")
    for number, value in text_fields(path, keys, numbers=("id", "answer")):
        if broken := [key for key in keys if LONE_SURROGATE.search(value[key])]:
            raise UserError(
                f"{path}, line {number}: {broken[0]} has a lone surrogate, which is not a "
                "character: fix or remove that line"
            )
        if blank := [key for key in ("id", "problem") if not value[key].strip()]:
            raise UserError(f"{path}, line {number}: {blank[0]} is blank")
        if not normalise(value["answer"]):
            raise UserError(f"{path}, line {number}: the answer {value['answer']!r} is blank")
        if value["id"] in problems:
            raise UserError(f"{path}, line {number}: id {value['id']!r} is used twice")
        earlier = value.get("earlier", "")
        if earlier and not _are_messages(earlier):
            raise UserError(
                f"{path}, line {number}: earlier must be a JSON list of {{role, content}}, as text"
            )
        problems[value["id"]] = Problem(
            value["id"], value["problem"], value["answer"], name, earlier
        )
        if not answers.fullmatch(value["answer"]):
            raise UserError(
                f"{path}, line {number}: {value['answer']!r} is not an answer of {name}"
            )
    if not problems:
        raise UserError(f"{path} is empty: it needs one {{id, problem, answer}} per line")
    return list(problems.values())


def problem_line(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a problem's line in a file for ``load_file``; ``earlier`` stands there only if there
    are earlier turns.
    """
    return {key: values[key] for key in LINE if values[key] or key != "earlier"}


def write_problems(path: Path, problems: list[Problem]) -> None:
    """Writes problems with their sets, for ``read_problems``."""
    write_jsonl(path, ({**problem_line(vars(p)), "set": p.set} for p in problems))


def read_problems(path: Path) -> list[Problem]:
    """Returns the problems that ``write_problems`` wrote. Raises UserError when a line is not a
    problem.
    """
    try:
        return [Problem(**values) for values in read_jsonl(path)]
    except TypeError as e:
        raise UserError(
            f"{path} is damaged: a line does not hold a problem: {first_line(e)}"
        ) from e


def hashes(folder: Path, sets: list[str]) -> dict[str, str]:
    """Returns {set: SHA-256 of its file, in hex}. Raises UserError when a file is missing."""
    return {name: sha256_file(_file(folder, name, "eval.sets")) for name in expand(sets)}


def text_fields(
    path: Path, keys: tuple[str, ...], numbers: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) of a JSONL file whose ``keys`` must all be text. Those in
    ``numbers`` may be finite numbers, and become text: 12 and 12.0 are "12".

    Raises UserError naming file, line and key when a key is missing or not text.
    """
    with path.open("rb") as f:
        places = [number for number, line in enumerate(f, 1) if line.strip()]
    for number, value in zip(places, read_jsonl(path), strict=True):
        for key in keys:
            if key not in value:
                raise UserError(
                    f"{path}, line {number}: no key {key!r}; each line needs {', '.join(keys)}"
                )
            if key in numbers:
                value[key] = _text(value[key])
            if not isinstance(value[key], str):
                kind = "text or a number" if key in numbers else "text"
                raise UserError(f"{path}, line {number}: {key} must be {kind}, not {value[key]!r}")
        yield number, value


def _text(value: Any) -> Any:
    """Returns a number as text; everything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return plain_number(value)


def _are_messages(text: Any) -> bool:
    try:
        turns = json.loads(text)
    except (TypeError, ValueError):
        return False
    return isinstance(turns, list) and all(
        isinstance(turn, dict)
        and turn.keys() == {"role", "content"}
        and all(isinstance(value, str) for value in turn.values())
        for turn in turns
    )


def _load_set(path: Path, name: str) -> list[Problem]:
    known = BENCHMARKS.get(name)
    if known is None:
        return load_file(path, name)
    problems = load_file(path, name, known.answers)
    if len(problems) != known.problems:
        raise UserError(
            f"{path} has {len(problems)} problems, but {name} has {known.problems}: "
            "complete the file (eval.limit=N evaluates the first N), or rename a set of your own"
        )
    return problems


def _suite(name: str) -> Suite:
    return SUITES.get(name, Suite((name,)))


def _file(folder: Path, name: str, key: str) -> Path:
    if not _NAME.fullmatch(name) or name == TOTAL:
        raise UserError(
            f"{key}: {name!r} cannot name a set: a name has only letters, digits, '_', '-' and "
            f"'.', and is not {TOTAL!r}: rename its file"
        )
    path = folder / f"{name}.jsonl"
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: set eval.benchmarks=DIR to the folder with {name}.jsonl"
            + (", or download it (warmstart prefetch RECIPE)" if name in BENCHMARKS else "")
        )
    if not path.is_file():
        there = sorted(p.stem for p in folder.glob("*.jsonl"))
        near = "" if name in BENCHMARKS else nearest(name, [*there, *BENCHMARKS, *SUITES])
        raise UserError(
            f"{path} does not exist ({folder} has {', '.join(there) or 'no .jsonl file'}): choose "
            f"one of these with {key}=[..], or another folder with eval.benchmarks=DIR"
            + (", or download it (warmstart prefetch RECIPE)" if name in BENCHMARKS else near)
        )
    return path
