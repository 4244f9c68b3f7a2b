"""Seconds of grading: ordinary rollouts, hostile ones, and how our own extraction grows with the
text.

    python -m tests.bench.bench_grade [ROLLOUTS [SIZE [HOSTILE]]]

Default: 1,600 rollouts, growth at 1,000,000 characters, all hostile texts.

Ordinary: rollouts of 60,000 characters, 3,000 of them after ``</think>``, from text to verdicts,
with the start of the worker processes. The peer is math-verify called plainly, as evaluation
harnesses do: whole texts, one after the other, in this process, with its own time limits; every
tenth rollout, and its seconds times ten. `right` counts verdicts on texts where graders go wrong
(boxes in the thinking only, several boxes, echoes of the prompt, ...).

Hostile: each text alone. The limit is two seconds and what an ordinary text takes alone, which is
the start of a worker. The peer has a process to itself and is killed after ten seconds.

Growth: the time of a text twice as long over the time of the text, each from its line of JSON as a
ledger has it; 2 where it is linear and 4 where quadratic.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import sys
import time
from collections.abc import Callable

from common.records import Problem, Rollout
from data_prep.answers.boxed import grade_state, is_exact
from eval.grading import grade
from tests.bench.table import Result, publish
from tests.data_prep.answers.test_boxed import bombs
from tests.eval.grading.texts import HOSTILE, TRICKY

LENGTH, SHOWN, PER_PROBLEM = 60_000, 3_000, 16
SECONDS = 20
"""For 1,600 ordinary rollouts on two cores."""
PEER, SAMPLE, PATIENCE = "math-verify on whole texts", 10, 10
GROWTH = 3
SENTENCES = (
    "Let $x_{%d}$ be the number of ways, so that $x_{%d} = %d + \\frac{%d}{%d}$.",
    "Hence \\[ a_{%d}^2 + b^2 = %d \\cdot %d, \\] which gives $\\sqrt{%d} < %d$.",
    "The answer to this part is %d, because $%d \\equiv %d \\pmod{%d}$ for all %d.",
    "Wait, that is not right: with %d of them there are %d, and **%d** cases are left.\n",
    "### Step %d\n\nWe have \\(n = %d\\), and $$\\binom{%d}{2} = %d.$$\n",
)


def prose(rng: random.Random, length: int) -> str:
    """Mathematics in the style of a rollout, cut at ``length`` characters."""
    parts, size = [], 0
    while size < length:
        sentence = rng.choice(SENTENCES)
        parts.append(sentence % tuple(rng.randrange(1, 1000) for _ in range(sentence.count("%d"))))
        size += len(parts[-1]) + 1
    return " ".join(parts)[:length]


def ordinary(count: int) -> tuple[list[Rollout], list[Problem]]:
    """Half of the rollouts end in the right answer, and half in another."""
    thoughts = prose(random.Random("thoughts"), 2 * LENGTH)
    rollouts = []
    for i in range(count):
        rng = random.Random(i)
        gold = 7 * (i // PER_PROBLEM)
        end = f"\n\n**Final Answer**\n\n$$\\boxed{{{gold + i % 2}}}$$"
        start = rng.randrange(LENGTH)
        thought = thoughts[start : start + LENGTH - SHOWN]
        text = f"<think>\n{thought}\n</think>\n\n{prose(rng, SHOWN - len(end))}{end}"
        rollouts.append(Rollout(("s", str(gold), i % PER_PROBLEM), 0, text, 1, "stop", "e", 0.0))
    return rollouts, [Problem(gold, "?", gold, "s") for gold in {r.key[1] for r in rollouts}]


def plain(text: str, gold: str) -> bool:
    """The peer's verdict."""
    import math_verify

    return bool(math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(text)))


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def plain_seconds(text: str) -> float:
    """The peer's seconds on one text; ``PATIENCE`` when it took longer."""
    child = multiprocessing.get_context("fork").Process(target=plain, args=(text, "7"))
    begin = time.perf_counter()
    child.start()
    child.join(PATIENCE)
    taken = time.perf_counter() - begin
    child.kill()
    child.join()
    return min(taken, PATIENCE)


def measure_ordinary(count: int) -> list[Result]:
    """Time of all, and verdicts that are right, on these and on the tricky ones."""
    rollouts, problems = ordinary(count)
    case = f"{count} x {LENGTH}"
    begin = time.perf_counter()
    grades = grade.grade(rollouts, problems)
    ours = time.perf_counter() - begin
    assert all(g.exact == g.verified == (g.extracted == g.key[1]) for g in grades)
    peer = SAMPLE * seconds(lambda: [plain(r.text, r.key[1]) for r in rollouts[::SAMPLE]])
    right = sum(
        is_exact(grade_state(text, "stop")[1], gold) == truth for text, gold, truth in TRICKY
    )
    theirs = sum(plain(text, gold) == truth for text, gold, truth in TRICKY)
    return [
        Result(case, "time", "s", ours, peer, PEER, SECONDS if count == 1600 else None),
        Result("tricky", "right", f"of {len(TRICKY)}", right, theirs, PEER, len(TRICKY)),
    ]


def measure_hostile(count: int | None) -> list[Result]:
    alone = seconds(lambda: grade.verify([(r"\boxed{7}", "7")]))
    results = [Result("one ordinary text", "time", "s", alone)]
    for name, text in list(HOSTILE.items())[:count]:
        rollout = Rollout(("s", "7", 0), 0, text, 1, "stop", "e", 0.0)
        ours = seconds(
            lambda rollout=rollout: grade.grade([rollout], [Problem("7", "?", "7", "s")])
        )
        results.append(Result(name, "time", "s", ours, plain_seconds(text), PEER, 2 + alone))
    return results


def measure_growth(size: int) -> list[Result]:
    best = []
    for length in (size, 2 * size):
        lines = {name: json.dumps(text) for name, (text, _) in bombs(length).items()}
        best.append(
            {
                name: min(
                    seconds(lambda line=line: grade_state(json.loads(line), "stop"))
                    for _ in range(7)
                )
                for name, line in lines.items()
            }
        )
    return [
        Result(name, "growth", "x", best[1][name] / best[0][name], limit=GROWTH) for name in best[0]
    ]


def main() -> None:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1600
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    hostile = int(sys.argv[3]) if len(sys.argv) > 3 else None
    results = measure_growth(size) + measure_ordinary(count) + measure_hostile(hostile)
    publish("bench-grade", results)
    for r in results:
        if (
            r.limit is not None
            and r.ours is not None
            and (r.ours < r.limit if r.case == "tricky" else r.ours > r.limit)
        ):
            print(f"  missed: {r.case} {r.ours:.3f}, limit {r.limit:.3f}")


if __name__ == "__main__":
    main()
