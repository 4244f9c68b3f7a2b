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
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_jsonl, write_text
from common.records import UNJUDGED, Grade, Key, Problem, Rollout, graders_differ
from data_prep.answers.answer_is import stated_state
from data_prep.answers.boxed import grade_state, is_exact, visible
from data_prep.benchmarks.sets import text_fields
from eval.generation import rollout_files

CPU_SECONDS = 1.5
"""Processor time of one judgement: the same on a busy machine, so that grading again gives the same grades."""
WALL_SECONDS = 20
"""Of a judgement that waits rather than computes."""
MEMORY = 2 << 30
"""Bytes of address space of one worker."""
WINDOW = 4000
"""Characters of a text, and of a gold answer, that math-verify is given."""
DISAGREEMENTS = "disagreements.jsonl"
EXTRACTORS = {"boxed": grade_state, "answer_is": stated_state}
"""Answer style -> what finds the state and the answer in (text, finish reason)."""

Pair = tuple[str, str]
"""(text, gold)."""


@dataclass(frozen=True)
class Disagreement:
    """A rollout on which the headline and math-verify differ."""

    key: Key
    extracted: str | None
    gold: str
    exact: bool
    verified: bool


def grade(rollouts: Iterable[Rollout], problems: Iterable[Problem], style: str = "boxed") -> list[Grade]:
    """One grade a rollout, in the rollouts' order; ``style`` is how answers are given (``data.answer_style``).

    Raises UserError for a rollout of an unknown problem.
    """
    golds = _golds(problems)
    rollouts = list(rollouts)
    for rollout in rollouts:
        if rollout.key[:2] not in golds:
            raise UserError(f"rollout {rollout.key} is of no problem in the benchmarks: evaluate anew")
    judged = _judgements([(r.text, r.finish_reason, golds[r.key[:2]]) for r in rollouts], style)
    return [Grade(rollout.key, *values) for rollout, values in zip(rollouts, judged, strict=True)]


def disagreements(grades: Iterable[Grade], problems: Iterable[Problem]) -> list[Disagreement]:
    """The grades on which the graders differ, in the grades' order. An unjudged rollout is none of them."""
    golds = _golds(problems)
    return [
        Disagreement(g.key, g.extracted, golds[g.key[:2]], g.exact, bool(g.verified))
        for g in grades
        if graders_differ(g.exact, g.verified)
    ]


def grade_folder(folder: Path, problems: Iterable[Problem], style: str = "boxed") -> Path:
    """Grades ``folder``'s rollouts and writes its disagreements.jsonl and its grades.jsonl, which is returned."""
    problems = list(problems)
    grades = grade(rollout_files.read(folder / rollout_files.ROLLOUTS).values(), problems, style)
    _write(folder / DISAGREEMENTS, map(asdict, disagreements(grades, problems)))
    path = folder / rollout_files.GRADES
    rollout_files.write_grades(path, grades)
    return path


def grade_file(path: Path) -> Path:
    """Grades a file of ``{"id", "gold", "text"}`` lines, ``finish_reason`` optional (``stop``).

    Writes ``<stem>.grades.jsonl`` beside it, a line ``{"id", "state", "extracted", "exact", "verified"}``
    each, and returns its path; ``<stem>.disagreements.jsonl`` has the lines on which the graders differ, each
    with its ``gold``. Raises UserError naming file and line for a broken line, or no line; nothing is written then.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file of {{id, gold, text}} lines")
    names, texts = [], []
    for number, value in text_fields(path, ("id", "gold", "text")):
        finish = value.get("finish_reason", "stop")
        if finish not in ("stop", "length"):
            raise UserError(f"{path}, line {number}: finish_reason must be stop or length, not {finish!r}")
        names.append(value["id"])
        texts.append((value["text"], finish, value["gold"]))
    if not names:
        raise UserError(f"{path} is empty: give a file of {{id, gold, text}} lines")
    fields = ("id", "state", "extracted", "exact", "verified")
    lines = [
        dict(zip(fields, (name, *values), strict=True)) for name, values in zip(names, _judgements(texts), strict=True)
    ]
    differ = [
        line | {"gold": gold}
        for line, (_, _, gold) in zip(lines, texts, strict=True)
        if graders_differ(line["exact"], line["verified"])
    ]
    target = path.with_name(f"{path.stem}.{rollout_files.GRADES}")
    _write(path.with_name(f"{path.stem}.{DISAGREEMENTS}"), differ)
    _write(target, lines)
    return target


def summary(grades: Path) -> str:
    """What a person wants to know of a grades file that ``grade_folder`` or ``grade_file`` wrote, in a line."""
    lines = list(read_jsonl(grades))
    right = sum(line["exact"] for line in lines)
    unjudged = sum(line["verified"] == UNJUDGED for line in lines)
    differ = sum(graders_differ(line["exact"], line["verified"]) for line in lines)
    listed = grades.with_name(grades.name.removesuffix(rollout_files.GRADES) + DISAGREEMENTS)
    return (
        f"{right} of {len(lines)} right; math-verify disagrees on {differ}"
        + (f" ({listed})" if differ else "")
        + (f" and did not get to {unjudged}" if unjudged else "")
    )


def verify(pairs: Iterable[Pair]) -> dict[Pair, bool | str]:
    """math-verify's opinion of each distinct (text, gold): true, false, or ``UNJUDGED``.

    A blank text is false unasked. Where math-verify itself meets an error, its opinion is false. Starts processes,
    so a script calls it under ``if __name__ == "__main__"``.
    """
    from pebble import ProcessPool

    opinions: dict[Pair, bool | str] = {pair: UNJUDGED if len(pair[1]) > WINDOW else False for pair in pairs}
    asked = [pair for pair, opinion in opinions.items() if opinion is False and pair[0].strip()]
    if not asked:
        return opinions
    # A server that has SymPy loaded already: it costs seconds once, and a replaced worker nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["math_verify", __name__])
    workers = min(len(asked), len(os.sched_getaffinity(0)))
    pool = ProcessPool(max_workers=workers, initializer=_limit, context=context)
    try:
        futures = {pair: pool.schedule(_judge, args=pair, timeout=WALL_SECONDS) for pair in asked}
        for pair, future in futures.items():
            opinions[pair] = UNJUDGED if future.exception() else future.result()
    finally:  # interrupted, what is left is not waited for
        pool.stop()
        pool.join()
    return opinions


def _golds(problems: Iterable[Problem]) -> Mapping[tuple[str, str], str]:
    return {(p.set, p.id): p.answer for p in problems}


def _judgements(
    texts: list[tuple[str, str, str]], style: str = "boxed"
) -> list[tuple[str, str | None, bool, bool | str]]:
    """(state, extracted, exact, verified) of each (text, finish reason, gold)."""
    found = [EXTRACTORS[style](text, finish) for text, finish, _ in texts]
    pairs = [(_asked(text, *of), gold) for of, (text, _, gold) in zip(found, texts, strict=True)]
    opinions = verify(pairs)
    return [
        (state, extracted, is_exact(extracted, pair[1]), opinions[pair])
        for (state, extracted), pair in zip(found, pairs, strict=True)
    ]


def _asked(text: str, state: str, extracted: str | None) -> str:
    """What math-verify is given: the box that counts alone, for it would take several as one list; nothing of a box
    too long for it, of which a part is another answer. Else the end of the visible part, or what stands around its
    last box if that is earlier.

    Nothing when the think block never closes: there is no answer to judge.
    """
    if state == "boxed" and extracted is not None:
        return f"\\boxed{{{extracted}}}" if len(extracted) <= WINDOW else ""
    shown = visible(text) or ""
    box = shown.rfind("\\boxed")
    end = len(shown) if box < 0 else box + WINDOW // 2
    return shown[max(0, min(end, len(shown)) - WINDOW) : end]


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    # ASCII, since a model may write half a surrogate pair.
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _limit() -> None:
    import math_verify  # where the server has not loaded it, its seconds are not the first text's

    assert math_verify
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's handler would wait for the end of a long power
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def _judge(text: str, gold: str) -> bool:
    import math_verify

    # The timer's signal ends the process, even within a long power. math-verify's own timeouts can be caught
    # inside SymPy, and count whole seconds: they are off.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        wanted = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
        found = math_verify.parse(text, parsing_timeout=None)
        return bool(math_verify.verify(wanted, found, timeout_seconds=None))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
