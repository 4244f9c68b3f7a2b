"""Generates a source in the OpenR1-Math-220k schema: sums with several traces each, some of them
bad.

The sums are easy enough to learn on a CPU. They have the same defects as the real source, so trace
choice and filters are exercised too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import isqrt
from typing import Any

from common.errors import UserError


def records(problems: int, digits: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields ``problems`` records over distinct pairs of ``digits``-digit numbers. Deterministic.

    A pair occurs in one order only, so that no held-out sum is a training sum in the other order.
    Raises UserError when there are fewer distinct pairs than ``problems``.
    """
    low, high = 10 ** (digits - 1), 10**digits
    count = (high - low) * (high - low + 1) // 2
    if problems > count:
        raise UserError(
            f"data.arithmetic.problems={problems}: only {count} sums of {digits} digits exist, "
            "counting a + b and b + a once"
        )
    rng = random.Random(seed)
    for i, pair in enumerate(rng.sample(range(count), problems)):
        # Pairs (larger, smaller) are numbered row by row: row r has r + 1 of them.
        row = (isqrt(8 * pair + 1) - 1) // 2
        a, b = rng.sample((low + row, low + pair - row * (row + 1) // 2), 2)
        traces = [_trace(a, b, kind) for kind in _kinds(rng)]
        verified = [t["right"] for t in traces]
        yield {
            "problem": f"What is {a} + {b}?",
            "solution": f"{a} + {b} = {a + b}",
            "answer": str(a + b),
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "source": "arithmetic",
            "uuid": f"{seed}-{digits}-{i}",
            "is_reasoning_complete": [t["complete"] for t in traces],
            "generations": [t["text"] for t in traces],
            "correctness_math_verify": verified,
            "correctness_llama": None,
            "finish_reasons": ["stop" if t["complete"] else "length" for t in traces],
            "correctness_count": sum(verified),
            "messages": [
                {"role": "user", "content": f"What is {a} + {b}?"},
                {"role": "assistant", "content": traces[0]["text"]},
            ],
        }


def _kinds(rng: random.Random) -> list[str]:
    """Returns the kinds of one to four traces; about one record in twenty has no good one."""
    bad = ["wrong", "incomplete", "unboxed", "misflagged"]
    kinds = rng.choices(bad, k=rng.randint(1, 3))
    if rng.random() < 0.95:
        kinds.append("good")
    rng.shuffle(kinds)
    return kinds


def _trace(a: int, b: int, kind: str) -> dict[str, Any]:
    answer = a + b + (kind in ("wrong", "misflagged"))
    text = f"<think>\n{_carries(a, b)}\n</think>\n\nThe answer is \\boxed{{{answer}}}."
    if kind == "unboxed":
        text = text.replace(f"\\boxed{{{answer}}}", str(answer))
    if kind == "incomplete":
        text = text[: text.index("</think>")]
    return {
        "text": text,
        "complete": kind != "incomplete",
        "right": kind in ("good", "misflagged", "unboxed"),
    }


def _carries(a: int, b: int) -> str:
    """Returns the addition digit by digit from the right, with the carries written out."""
    lines, carry, written = [], 0, ""
    x, y = str(a)[::-1], str(b)[::-1]
    for p, q in zip(x, y, strict=True):
        total = int(p) + int(q) + carry
        digit, following = total % 10, total // 10
        lines.append(f"{p} + {q} + {carry} = {total}, write {digit} carry {following}")
        carry, written = following, f"{digit}{written}"
    return "\n".join([*lines, f"{carry or ''}{written}"])
