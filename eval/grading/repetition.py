"""Finds repetition in rollouts: loops at the end of a text, and identical texts."""

from __future__ import annotations

from collections.abc import Iterable

from common.records import Key, Rollout

COPIES = 4
SPAN = 200
"""A loop is at least ``COPIES`` copies of one unit with together at least ``SPAN`` characters."""
LONGEST_UNIT = 2_000
"""Longest unit of a loop, in characters."""
_PROBE = 32


def is_repeating(text: str) -> bool:
    """Returns whether the text ends in a loop: copies of one unit up to its last character, the
    last copy perhaps cut.

    Time is linear in ``LONGEST_UNIT`` on text that does not loop, whatever the text's length.
    """
    tail = text[-COPIES * LONGEST_UNIT :]
    end = len(tail)
    if end < SPAN:
        return False
    probe = tail[-_PROBE:]
    # In a loop, the text's last characters also occur one unit earlier.
    place = tail.rfind(probe, max(0, end - _PROBE - LONGEST_UNIT), end - 1)
    while place >= 0:
        unit = end - _PROBE - place
        span = max(COPIES * unit, SPAN)
        if span <= end and tail[-span:-unit] == tail[unit - span :]:
            return True
        place = tail.rfind(probe, max(0, end - _PROBE - LONGEST_UNIT), place + _PROBE - 1)
    return False


def identical(rollouts: Iterable[Rollout]) -> set[Key]:
    """Returns the keys of rollouts with the same text as one of the same problem with a smaller
    ``k``.
    """
    seen: set[tuple[str, str, str]] = set()
    found = set()
    for rollout in sorted(rollouts, key=lambda r: r.key):
        said = (*rollout.key[:2], rollout.text)
        if said in seen:
            found.add(rollout.key)
        seen.add(said)
    return found
