"""Shows an attempt's progress where it was started: start-up, steps, the last save."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType

from common.progress import Line, progress, waiting
from trainer.run.step_metrics import StepMetrics


class Display:
    """Shows a bar on a terminal and a line per step in a log. Use it as a context manager."""

    def __init__(self, ranks: int) -> None:
        self._what = f"starting {ranks} rank{'' if ranks == 1 else 's'}"
        self._bar: Line | None = None
        self._lines = ExitStack()

    def __enter__(self) -> Display:
        self._lines.enter_context(waiting(self._what))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()

    def show(self, step: StepMetrics) -> None:
        """Shows a step that has ended, and its alarms."""
        if not sys.stderr.isatty():
            self._lines.close()
            print(step.line(), *step.alarm_lines(), sep="\n", flush=True)
        else:
            for line in step.alarm_lines():
                print(line, flush=True)
            if self._bar is None:
                self._lines.close()
                bar = progress("steps", step.total, initial=step.step - 1)
                self._bar = self._lines.enter_context(bar)
            self._bar(step.step - self._bar.count)
            self._bar.say(step.short(), left=step.eta_s)
        if step.step == step.total:
            self._lines.close()
            self._lines.enter_context(waiting("saving the last checkpoint"))
