"""Runs the engines until every rollout has finished once: assigns rollouts, collects results,
restarts dead engines.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import StageFailed
from common.records import Key, Rollout
from eval.generation.engines import BEAT, START, Fleet, reason
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler

BEAT_SECONDS = 5.0
"""Seconds between two requests for an engine's progress."""
DEATHS = 3
"""An engine is given up after this many deaths without a rollout finished or set aside in between.
"""


class Driver:
    """Runs one evaluation's engines. ``seeds`` and ``prompts`` (token ids) are those of every
    rollout to generate.
    """

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        pulse: Pulse,
        prompts: Mapping[Key, list[int]],
        seeds: Mapping[Key, int],
        log: Callable[[str], Path],
        say: Callable[[str], None],
        summary: str,
    ) -> None:
        """``log`` returns the path of an engine's output, by name; ``say`` shows the engines'
        state; ``summary`` has an engine's settings in one line.
        """
        self.fleet, self.scheduler, self.pulse = fleet, scheduler, pulse
        self.prompts, self.seeds, self.log, self.say = prompts, seeds, log, say
        self.alive: dict[str, bool] = {}  # engine -> whether it has loaded
        self.awaited: set[str] = set()  # engines that have never been up
        self.deaths: Counter[str] = Counter()
        self.summary: str | None = summary  # None once it is told
        self.heard: tuple[float, int] | None = None  # when tokens were last counted, and how many

    def run(self, names: Sequence[str]) -> Iterator[Rollout]:
        """Starts engines of these names and yields each rollout as it finishes.

        Raises StageFailed when no engine is left, or at the end when rollouts were set aside.
        """
        self.awaited = set(names)
        for name in names:
            self._start(name)
        self._tell()
        beat = time.monotonic()
        while not self.scheduler.done:
            self.scheduler.awaited = len(self.awaited)
            for name, key, late in self.scheduler.assign():
                self.pulse.ask(name, key, time.monotonic())
                self.fleet.ask(name, key, self.prompts[key], self.seeds[key], late)
            for name, what, answer in self.fleet.answers(BEAT_SECONDS):
                if isinstance(answer, Exception):
                    self._died(name, reason(answer), refused=isinstance(answer, ValueError))
                elif what == START:
                    self.pulse.up(name, time.monotonic())
                    self.scheduler.join(name, answer)
                    self._introduce(answer)
                    self.alive[name] = True
                    self.awaited.discard(name)
                    self._tell()
                elif what == BEAT:
                    self._hear(name, answer)
                else:
                    assert isinstance(what, tuple)
                    yield self._finished(name, what, answer)
            if time.monotonic() - beat >= BEAT_SECONDS:
                beat = time.monotonic()
                self._check(beat)
                self._tell()
        if aside := self.scheduler.set_aside:
            raise StageFailed(
                f"missing rollouts: {len(aside)}, because each was on two engines that died: "
                f"{', '.join('/'.join(map(str, key)) for key in aside)}. See "
                f"{self.log('engine-*')}. All others are kept; the same command tries these again"
            )

    def _introduce(self, capacity: int) -> None:
        """Prints the engines' settings once, with the KV cache of the first one that has loaded."""
        if self.summary is not None:
            each = f"KV cache of {capacity:,} tokens, {self.summary}"
            print(f"{_engines(len(self.alive))}, each: {each}", file=sys.stderr, flush=True)
            self.summary = None

    def _tell(self) -> None:
        up, begun = sum(self.alive.values()), len(self.alive)
        if not up:
            self.say(f"starting {_engines(begun)}")
            return
        text = _engines(up) if up == begun else f"{up} of {_engines(begun)}"
        now, tokens = time.monotonic(), self.scheduler.tokens
        if self.heard is not None and tokens > self.heard[1]:
            before, counted = self.heard
            text += f", {(tokens - counted) / max(now - before, 1):,.0f} tokens/s"
        self.heard = now, tokens
        self.say(text)

    def _start(self, name: str) -> None:
        self.alive[name] = False
        self.pulse.begin(name, time.monotonic())
        self.fleet.start(name)

    def _hear(self, name: str, tokens: Mapping[Key, int]) -> None:
        running = self.scheduler.running(name)
        tokens = {key: count for key, count in tokens.items() if key in running}
        self.pulse.hear(name, tokens, time.monotonic())
        for key, count in tokens.items():
            self.scheduler.progress(key, count)

    def _finished(self, name: str, key: Key, answer: dict[str, Any]) -> Rollout:
        assert answer["finish_reason"] in ("stop", "length"), answer
        self.pulse.finish(name, key, answer["tokens"], time.monotonic())
        self.scheduler.finish(key, answer["tokens"])
        self.deaths[name] = 0
        return Rollout(key=key, seed=self.seeds[key], **answer)

    def _check(self, now: float) -> None:
        for name, up in list(self.alive.items()):
            if why := self.pulse.hangs(name, now):
                self._died(name, why)
            elif up:
                self.fleet.beat(name)

    def _died(self, name: str, why: str, refused: bool = False) -> None:
        """Returns an engine's rollouts to the queue and restarts it, or gives it up. ``refused``:
        vLLM rejected its arguments.
        """
        self.fleet.stop(name)
        self.pulse.leave(name)
        self.awaited.discard(name)
        never = not any(self.alive.values())
        if self.alive.pop(name) and self.scheduler.leave(name):
            self.deaths[name] = 0
        else:
            self.deaths[name] += 1
        given_up = self.deaths[name] >= DEATHS or (refused and never)
        what = "is not restarted" if given_up else "is restarted"
        print(f"{name} died ({why}) and {what}: see {self.log(name)}", file=sys.stderr, flush=True)
        if not given_up:
            self._start(name)
        elif not self.alive:
            raise StageFailed(
                f"{name}, the last engine, died ({why}): see {self.log(name)}. "
                "Finished rollouts are kept; the same command resumes from them"
            )


def _engines(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"
