"""Rollouts to grades: the exact headline, and math-verify's opinion from processes that can be killed.

math-verify hands what a model wrote to SymPy, which may take for ever, take all memory, or crash. So each
judgement runs in a worker with a time and a memory limit; a worker that breaks one is replaced.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
from collections.abc import Iterable
from pathlib import Path

from data_prep.answers import grade_state, is_exact, visible
from data_prep.benchmarks import text_fields
from data_prep.files import write_text
from data_prep.schema import Grade, Problem, Rollout
from eval import ledger

TIMEOUT = 2.0
"""Seconds of one judgement."""
MEMORY = 2 << 30
"""Bytes of address space of one worker."""
TAIL = 4000
"""Characters of the visible part's end that math-verify sees."""

Pair = tuple[str, str]
"""(text, gold)."""


def grade(rollouts: Iterable[Rollout], problems: Iterable[Problem]) -> list[Grade]:
    """One grade a rollout, in the rollouts' order. Raises ValueError for a rollout of an unknown problem."""
    golds = {(p.set, p.id): p.answer for p in problems}
    rollouts = list(rollouts)
    for rollout in rollouts:
        if rollout.key[:2] not in golds:
            raise ValueError(f"rollout {rollout.key} is of no problem in the benchmarks: evaluate anew")
    pairs = [(_shown(rollout.text), golds[rollout.key[:2]]) for rollout in rollouts]
    opinions = verify(pairs)
    grades = []
    for rollout, pair in zip(rollouts, pairs, strict=True):
        state, extracted = grade_state(rollout.text, rollout.finish_reason)
        grades.append(Grade(rollout.key, state, extracted, is_exact(extracted, pair[1]), opinions[pair]))
    return grades


def grade_folder(folder: Path, problems: Iterable[Problem]) -> Path:
    """Grades ``folder``'s rollouts and writes its grades.jsonl, which is returned."""
    rollouts = ledger.read(folder / ledger.ROLLOUTS)
    path = folder / ledger.GRADES
    ledger.write_grades(path, grade(rollouts.values(), problems))
    return path


def grade_file(path: Path) -> Path:
    """Grades a file of ``{"id", "gold", "text"}`` lines, ``finish_reason`` optional (``stop``).

    Writes ``<stem>.grades.jsonl`` beside it, a line ``{"id", "state", "extracted", "exact", "verified"}``
    each, and returns its path. Raises ValueError naming file and line for a broken line; nothing is
    written then.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a file of {{id, gold, text}} lines")
    lines = []
    for number, value in text_fields(path, ("id", "gold", "text")):
        finish = value.get("finish_reason", "stop")
        if finish not in ("stop", "length"):
            raise ValueError(f"{path}, line {number}: finish_reason must be stop or length, not {finish!r}")
        lines.append((value["id"], value["gold"], value["text"], finish))
    opinions = verify((_shown(text), gold) for _, gold, text, _ in lines)
    out = []
    for name, gold, text, finish in lines:
        state, extracted = grade_state(text, finish)
        exact, verified = is_exact(extracted, gold), opinions[_shown(text), gold]
        out.append({"id": name, "state": state, "extracted": extracted, "exact": exact, "verified": verified})
    target = path.with_name(f"{path.stem}.grades.jsonl")
    write_text(target, "".join(json.dumps(line) + "\n" for line in out))
    return target


def verify(pairs: Iterable[Pair]) -> dict[Pair, bool | str]:
    """math-verify's opinion of each distinct (text, gold): true, false, or ``"timeout"``.

    ``"timeout"`` stands for every judgement that was not reached: out of time, out of memory, or a crash.
    A text without a digit or a box is false unasked.
    """
    from pebble import ProcessPool

    unique = dict.fromkeys(pairs)
    opinions: dict[Pair, bool | str] = dict.fromkeys(unique, False)
    asked = [pair for pair in unique if "\\boxed" in pair[0] or any(c.isdigit() for c in pair[0])]
    if not asked:
        return opinions
    # A server that has SymPy loaded already: it costs a second once, and a replaced worker nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["math_verify", __name__])
    workers = min(len(asked), len(os.sched_getaffinity(0)))
    with ProcessPool(max_workers=workers, initializer=_limit, context=context) as pool:
        futures = {pair: pool.schedule(_judge, args=pair, timeout=TIMEOUT) for pair in asked}
        for pair, future in futures.items():
            opinions[pair] = "timeout" if future.exception() else future.result()
    return opinions


def _shown(text: str) -> str:
    """The end of what a reader sees; of the whole text when its think block never closes."""
    shown = visible(text)
    return (text if shown is None else shown)[-TAIL:]


def _limit() -> None:
    import math_verify  # where the server has not loaded it, its second is not the first text's

    assert math_verify
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def _judge(text: str, gold: str) -> bool:
    import math_verify

    # Its own timeouts (signals, whole seconds) are off: the pool's cannot be caught inside SymPy.
    wanted = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    found = math_verify.parse(text, parsing_timeout=None)
    return bool(math_verify.verify(wanted, found, timeout_seconds=None))
