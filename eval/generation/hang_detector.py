"""Detects hung engines: those that have work but produce no token, or finish no rollout, for too
long.

The limits come from measured times, because a token takes milliseconds on one machine and seconds
on another. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.records import Key

START_SECONDS = 1800.0
"""Seconds that every engine may take to load, whatever was measured."""
SILENCES = 10
"""An engine hangs when it is silent for this many times the longest silence of any engine, loading
included.
"""
SLOWNESS = 4
"""A rollout hangs when it takes this many times as long as its full budget would at the mean pace
of all rollouts. Time counts from the last end of another rollout on its engine: until then it may
have waited for room in the KV cache.
"""


class Pulse:
    """Tracks the progress of all engines. ``budget`` is the maximum number of tokens of a
    rollout.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._longest = 0.0
        self._ended = (0.0, 0)  # total seconds and tokens of the rollouts that ended
        self._starting: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._running: dict[str, dict[Key, tuple[float, int]]] = {}
        self._freed: dict[str, float] = {}  # engine -> when one of its rollouts last ended

    def begin(self, engine: str, now: float) -> None:
        """Records that an engine begins to load."""
        self._starting[engine] = now

    def up(self, engine: str, now: float) -> None:
        """Records that an engine has loaded."""
        self._longest = max(self._longest, now - self._starting.pop(engine))
        self._running[engine] = {}

    def ask(self, engine: str, key: Key, now: float) -> None:
        """Records that an engine is given a rollout."""
        if not self._running[engine]:
            self._heard[engine] = now
        self._running[engine][key] = (now, 0)

    def hear(self, engine: str, tokens: Mapping[Key, int], now: float) -> None:
        """Records the number of tokens of each rollout of an engine."""
        running = self._running[engine]
        moved = {
            key: count
            for key, count in tokens.items()
            if key in running and count > running[key][1]
        }
        if moved:
            self._alive(engine, now)
        running.update({key: (running[key][0], count) for key, count in moved.items()})

    def finish(self, engine: str, key: Key, tokens: int, now: float) -> None:
        """Records that a rollout has ended with ``tokens`` tokens."""
        self._alive(engine, now)
        self._freed[engine] = now
        begun, _ = self._running[engine].pop(key)
        self._ended = (self._ended[0] + now - begun, self._ended[1] + tokens)

    def leave(self, engine: str) -> None:
        """Forgets a stopped engine."""
        self._starting.pop(engine, None)
        self._running.pop(engine, None)
        self._freed.pop(engine, None)

    def hangs(self, engine: str, now: float) -> str | None:
        """Returns why an engine counts as hung, as text; None if it does not."""
        if engine in self._starting:
            limit = max(START_SECONDS, SILENCES * self._longest)
            too_long = now - self._starting[engine] > limit
            return f"not loaded after {limit:,.0f} s" if too_long else None
        running = self._running.get(engine)
        if not running:
            return None
        limit = SILENCES * self._longest
        if now - self._heard[engine] > limit:
            return f"no token for {limit:,.0f} s"
        deadline = self._deadline(now)
        for key, (begun, _) in running.items():
            if deadline is not None and now - max(begun, self._freed.get(engine, begun)) > deadline:
                return f"{'/'.join(map(str, key))} not finished after {deadline:,.0f} s"
        return None

    def _alive(self, engine: str, now: float) -> None:
        self._longest = max(self._longest, now - self._heard[engine])
        self._heard[engine] = now

    def _deadline(self, now: float) -> float | None:
        """Returns the seconds that a rollout may take, at least ``SILENCES`` times the longest
        silence; None before the first token.
        """
        seconds, tokens = self._ended
        for running in self._running.values():
            seconds += sum(now - begun for begun, _ in running.values())
            tokens += sum(count for _, count in running.values())
        if not tokens:
            return None
        return max(SLOWNESS * self._budget * seconds / tokens, SILENCES * self._longest)
