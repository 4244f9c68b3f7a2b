"""Grades rollouts by exact match (the headline) and by math-verify, which runs in processes that
can be killed.

math-verify passes a model's text to SymPy, which may never return, use all memory, or crash. So
each judgement runs in a worker with a time and a memory limit; a worker that exceeds one is
replaced.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_jsonl, write_text
from common.processes import limit_memory
from common.progress import progress
from common.records import UNJUDGED, Grade, Key, Problem, Rollout, graders_differ
from data_prep import rules
from data_prep.answers import gsm8k_synth
from data_prep.answers.answer_is import stated_state
from data_prep.answers.boxed import grade_state, is_exact, visible
from data_prep.answers.normalise import normalise
from data_prep.benchmarks.sets import text_fields
from eval.generation import rollout_files

CPU_SECONDS = 1.5
"""CPU time limit per judgement. CPU time does not depend on how busy the machine is, so grading
again gives the same grades.
"""
WALL_SECONDS = 20
"""Wall time limit per judgement, for a judgement that waits instead of computing."""
MEMORY = 2 << 30
"""Bytes of address space per worker."""
WINDOW = 4000
"""Maximum number of characters passed to math-verify; a longer gold answer is not judged."""
DISAGREEMENTS = "disagreements.jsonl"
EXTRACTORS = {
    "boxed": grade_state,
    "answer_is": stated_state,
    "gsm8k_synth": gsm8k_synth.graded,
}
"""Name of an extractor -> function from (text, finish reason) to (state, extracted answer)."""

_PERCENT = re.compile(r"\\?%|\bpercent\b")
"""math-verify does not read a number from a box with a percent sign."""

Pair = tuple[str, str]
"""(text, gold)."""


@dataclass(frozen=True)
class Disagreement:
    """A rollout on which exact match and math-verify differ."""

    key: Key
    extracted: str | None
    gold: str
    exact: bool
    verified: bool


def grade(
    rollouts: Iterable[Rollout],
    problems: Iterable[Problem],
    style: str = "boxed",
    prefill: str = "",
) -> list[Grade]:
    """Returns one grade per rollout, in the rollouts' order; ``style`` is the answer style
    (``data.answer_style``), ``prefill`` the text that each rollout continues.

    Raises UserError for a rollout of an unknown problem.
    """
    golds = _golds(problems)
    rollouts = list(rollouts)
    for rollout in rollouts:
        if rollout.key[:2] not in golds:
            raise UserError(
                f"rollout {rollout.key} belongs to none of the evaluated problems: evaluate again"
            )
    judged = _judgements(
        [(prefill + r.text, r.finish_reason, golds[r.key[:2]]) for r in rollouts], style
    )
    return [
        Grade(rollout.key, *values, rules.ANSWERS)
        for rollout, values in zip(rollouts, judged, strict=True)
    ]


def disagreements(grades: Iterable[Grade], problems: Iterable[Problem]) -> list[Disagreement]:
    """Returns the disagreements of the graders, in the grades' order. Unjudged rollouts are not
    included.
    """
    golds = _golds(problems)
    return [
        Disagreement(g.key, g.extracted, golds[g.key[:2]], g.exact, bool(g.verified))
        for g in grades
        if graders_differ(g.exact, g.verified)
    ]


def grade_folder(
    folder: Path, problems: Iterable[Problem], style: str = "boxed", prefill: str = ""
) -> Path:
    """Grades ``folder``'s rollouts; writes disagreements.jsonl and grades.jsonl, and returns the
    latter's path.
    """
    problems = list(problems)
    rollouts = rollout_files.read(folder / rollout_files.ROLLOUTS).values()
    grades = grade(rollouts, problems, style, prefill)
    _write(folder / DISAGREEMENTS, map(asdict, disagreements(grades, problems)))
    path = folder / rollout_files.GRADES
    rollout_files.write_grades(path, grades)
    return path


def grade_file(path: Path, style: str | None = None) -> Path:
    """Grades a file of ``{"id", "gold", "text"}`` lines, ``finish_reason`` optional (``stop``), in
    an answer style of ``EXTRACTORS`` (``boxed``). An id and a gold answer may be numbers.

    Writes ``<stem>.grades.jsonl`` beside it, with one ``{"id", "state", "extracted", "exact",
    "verified", "grader"}`` per line, and returns its path; ``<stem>.disagreements.jsonl`` has the
    lines on which the graders differ, each with its ``gold``. Raises UserError, and writes nothing,
    when the file is missing or empty, for an unknown style, or naming file and line when a line is
    broken or its gold answer is blank.
    """
    style = style or "boxed"
    if style not in EXTRACTORS:
        raise UserError(f"--style {style} is unknown: choose one of {', '.join(EXTRACTORS)}")
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file of {{id, gold, text}} lines")
    names, texts = [], []
    for number, value in text_fields(path, ("id", "gold", "text"), numbers=("id", "gold")):
        if not normalise(value["gold"]):
            raise UserError(f"{path}, line {number}: the gold answer {value['gold']!r} is blank")
        finish = value.get("finish_reason", "stop")
        if finish not in ("stop", "length"):
            raise UserError(
                f"{path}, line {number}: finish_reason must be stop or length, not {finish!r}"
            )
        names.append(value["id"])
        texts.append((value["text"], finish, value["gold"]))
    if not names:
        raise UserError(f"{path} is empty: give a file of {{id, gold, text}} lines")
    fields = ("id", "state", "extracted", "exact", "verified", "grader")
    lines = [
        dict(zip(fields, (name, *values, rules.ANSWERS), strict=True))
        for name, values in zip(names, _judgements(texts, style), strict=True)
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
    """Returns a one-line summary of a grades file that ``grade_folder`` or ``grade_file`` wrote."""
    lines = list(read_jsonl(grades))
    right = sum(line["exact"] for line in lines)
    unjudged = sum(line["verified"] == UNJUDGED for line in lines)
    differ = sum(graders_differ(line["exact"], line["verified"]) for line in lines)
    listed = grades.with_name(grades.name.removesuffix(rollout_files.GRADES) + DISAGREEMENTS)
    return (
        f"{right} of {len(lines)} right; math-verify disagrees on {differ}"
        + (f" ({listed})" if differ else "")
        + (f" and gave no verdict on {unjudged}" if unjudged else "")
    )


def verify(pairs: Iterable[Pair]) -> dict[Pair, bool | str]:
    """Returns math-verify's opinion of each distinct (text, gold): true, false, or ``UNJUDGED``.

    A gold answer longer than ``WINDOW`` is ``UNJUDGED``, a blank text is false; math-verify sees
    neither. An error that math-verify catches is false; a crash or an exceeded limit is
    ``UNJUDGED``. Starts processes, so a script has to call it under ``if __name__ == "__main__"``.
    """
    from pebble import ProcessPool

    opinions: dict[Pair, bool | str] = {
        pair: UNJUDGED if len(pair[1]) > WINDOW else False for pair in pairs
    }
    asked = [pair for pair, opinion in opinions.items() if opinion is False and pair[0].strip()]
    if not asked:
        return opinions
    # The fork server loads SymPy once, which takes seconds, so replacing a worker is cheap.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["math_verify", __name__])
    workers = min(len(asked), len(os.sched_getaffinity(0)))
    pool = ProcessPool(max_workers=workers, initializer=_limit, context=context)
    try:
        futures = {pair: pool.schedule(_judge, args=pair, timeout=WALL_SECONDS) for pair in asked}
        with progress("answers checked by math-verify", len(futures)) as advance:
            for pair, future in futures.items():
                opinions[pair] = UNJUDGED if future.exception() else future.result()
                advance(1)
    finally:  # after an interrupt, the remaining judgements are dropped
        pool.stop()
        pool.join()
    return opinions


def _golds(problems: Iterable[Problem]) -> Mapping[tuple[str, str], str]:
    return {(p.set, p.id): p.answer for p in problems}


def _judgements(
    texts: list[tuple[str, str, str]], style: str = "boxed"
) -> list[tuple[str, str | None, bool, bool | str]]:
    """Returns (state, extracted, exact, verified) of each (text, finish reason, gold)."""
    found = [EXTRACTORS[style](text, finish) for text, finish, _ in texts]
    pairs = [(_asked(text, *of), gold) for of, (text, _, gold) in zip(found, texts, strict=True)]
    opinions = verify(pairs)
    return [
        (state, extracted, is_exact(extracted, pair[1]), opinions[pair])
        for (state, extracted), pair in zip(found, pairs, strict=True)
    ]


def _asked(text: str, state: str, extracted: str | None) -> str:
    """Returns the text for math-verify. If a box counts, only that box, because math-verify would
    read several as one list; but an empty text if the box exceeds ``WINDOW``, because a part of it
    would be another answer. Otherwise the last ``WINDOW`` characters of the visible part, or those
    around its last box if that is earlier.

    Returns an empty text if the think block never closes: there is no answer to judge.
    """
    if state == "boxed" and extracted is not None:
        return _box(extracted) if len(extracted) <= WINDOW else ""
    shown = visible(text) or ""
    box = shown.rfind("\\boxed")
    end = len(shown) if box < 0 else box + WINDOW // 2
    return shown[max(0, min(end, len(shown)) - WINDOW) : end]


def _box(answer: str) -> str:
    """Returns a box for math-verify, without percent signs, which exact match ignores too."""
    return f"\\boxed{{{_PERCENT.sub('', answer)}}}"


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    # ASCII, because a model may write half a surrogate pair, which UTF-8 cannot encode.
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _limit() -> None:
    # Loaded before the clock starts: the import does not count as the first text's time.
    import math_verify

    assert math_verify
    limit_memory(MEMORY)
    # A Python handler would wait until a long power ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def _judge(text: str, gold: str) -> bool:
    import math_verify

    # The timer's signal ends the process, even within a long power. math-verify's own timeouts are
    # off, because SymPy may catch them and they count full seconds only.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        wanted = math_verify.parse(_box(gold), parsing_timeout=None)
        found = math_verify.parse(text, parsing_timeout=None)
        return bool(math_verify.verify(wanted, found, timeout_seconds=None))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
