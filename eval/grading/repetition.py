"""Rollouts that say nothing new: loops at the end of a text, and texts that are there twice."""

from __future__ import annotations

from collections.abc import Iterable

from common.records import Key, Rollout

COPIES = 4
SPAN = 200
"""A loop is at least so many copies of one unit, which together are at least so many characters."""
LONGEST_UNIT = 2_000
"""Characters."""
_PROBE = 32


def is_repeating(text: str) -> bool:
    """Whether the text ends in a loop: copies of one unit up to its last character, the last perhaps cut.

    Time is linear in ``LONGEST_UNIT`` on text that does not loop, whatever the text's length.
    """
    tail = text[-COPIES * LONGEST_UNIT :]
    end = len(tail)
    if end < SPAN:
        return False
    probe = tail[-_PROBE:]
    # A loop's end stands one unit earlier, too.
    place = tail.rfind(probe, max(0, end - _PROBE - LONGEST_UNIT), end - 1)
    while place >= 0:
        unit = end - _PROBE - place
        span = max(COPIES * unit, SPAN)
        if span <= end and tail[-span:-unit] == tail[unit - span :]:
            return True
        place = tail.rfind(probe, max(0, end - _PROBE - LONGEST_UNIT), place + _PROBE - 1)
    return False


def identical(rollouts: Iterable[Rollout]) -> set[Key]:
    """Keys of the rollouts whose text is that of an earlier one of the same problem, in ``k``'s order."""
    seen: set[tuple[str, str, str]] = set()
    found = set()
    for rollout in sorted(rollouts, key=lambda r: r.key):
        said = (*rollout.key[:2], rollout.text)
        if said in seen:
            found.add(rollout.key)
        seen.add(said)
    return found
