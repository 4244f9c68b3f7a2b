"""The rehearsal of a training job: before training, its ranks train two steps of a small model with
the recipe's settings (``trainer.rehearsal``).

If that fails, further tries switch off one knob each; the first that succeeds identifies the
setting that these nodes cannot run.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.exit_codes import DONE, PREFLIGHT, STOPPED
from common.files import file_errors
from slurm.commands import command_lines
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from trainer.process.network import free_port
from trainer.rehearsal.failure import STOPPED_LINE, Failure
from trainer.rehearsal.knobs import SECONDS, off, tries
from trainer.run.folder import Run

PASSED, TIMED_OUT, ASKED_TO_STOP = "passed", "timed out", "asked to stop"
OUT_OF_MEMORY = "OutOfMemoryError"


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of ``run`` with the recipe and overrides ``chosen``, in which ``knobs``
    are on.
    """

    stack: Stack
    run: Run
    chosen: Sequence[str]
    knobs: Sequence[str]

    def command(self, without: Sequence[str] = ()) -> list[str]:
        """Returns the srun command of one try, with the knobs ``without`` switched off."""
        task = (*self.stack.python, "-m", "slurm.nodes.rank", str(self.run.root), "rehearse")
        return self.stack.srun(
            "--kill-on-bad-exit=1", "--label", *task, *self.chosen, *off(without)
        )

    def hold(self, work: Stoppable, meeting: Mapping[str, str]) -> int:
        """Returns DONE (also if it took too long), STOPPED, or PREFLIGHT after printing what fails
        and what to do. ``meeting`` has the ranks' variables.
        """
        with file_errors(self.run.root):
            self.run.root.mkdir(parents=True, exist_ok=True)
            self.run.rehearsal_log.write_text("", encoding="utf-8")
        print(f"warmstart: rehearsing two steps with {' '.join(self._on())}", flush=True)
        first = self._try(work, meeting)
        if first == PASSED:
            print("warmstart: the rehearsal passed", flush=True)
        if first == TIMED_OUT:
            print(
                f"warmstart: the rehearsal did not end within {SECONDS} s ({self.run.rehearsal_log}"
                " has the ranks' output): training starts anyway",
                flush=True,
            )
        if not isinstance(first, Failure):
            return STOPPED if first == ASKED_TO_STOP else DONE
        late = False
        # First as it is, so that no setting is blamed for a fault that passes.
        for knobs in ((), *tries(self.knobs)):
            changed = " ".join(off(knobs)) or "once more"
            print(f"warmstart: the rehearsal failed; trying {changed}", flush=True)
            result = self._try(work, meeting, knobs)
            if result == ASKED_TO_STOP:
                return STOPPED
            if result == PASSED and not knobs:
                print("warmstart: the rehearsal passed the second time", flush=True)
                return DONE
            if result == PASSED:
                print(f"warmstart: {self._verdict(first, knobs)}", flush=True)
                return PREFLIGHT
            late = late or result == TIMED_OUT
        open_end = f"; some tries did not end within {SECONDS} s" if late else ""
        print(f"warmstart: {self._verdict(first, ())}{open_end}", flush=True)
        return PREFLIGHT

    def _on(self) -> list[str]:
        return [f"{knob}=true" for knob in self.knobs]

    def _try(
        self, work: Stoppable, meeting: Mapping[str, str], without: Sequence[str] = ()
    ) -> str | Failure:
        """Runs one try; appends its output to the log."""
        log, begin = self.run.rehearsal_log, time.monotonic()
        # A port of its own, because an earlier step's may still be open.
        variables = {**meeting, "MASTER_PORT": str(free_port())}
        command = self.command(without)
        with log.open("a", encoding="utf-8") as output:
            print(command_lines.line(command), file=output, flush=True)
            start = log.stat().st_size
            code = work.run(command, variables, log=output, seconds=SECONDS)
        said = log.read_bytes()[start:].decode("utf-8", errors="replace")
        if code == DONE:
            return PASSED
        if work.asked or STOPPED_LINE in said:
            return ASKED_TO_STOP
        if failure := Failure.first(said):
            return failure
        if time.monotonic() - begin > SECONDS:
            return TIMED_OUT
        return Failure(None, f"srun ended with exit code {code}")

    def _verdict(self, failure: Failure, without: Sequence[str]) -> str:
        """Returns what fails on these nodes and what to do; ``without`` has the knobs without which
        it succeeds, none if it always fails.
        """
        about = f"{failure.text}; log: {self.run.rehearsal_log}"
        if without:
            named = " and ".join(f"{knob}=true" for knob in without)
            fails = "fails" if len(without) == 1 else "fail"
            # The settings of a run that has started are frozen.
            fix = [*off(without), "run.name=NAME"] if self.run.config.exists() else off(without)
            return (
                f"{named} {fails} on these nodes ({about}): run the same command with "
                f"{' '.join(fix)}"
            )
        plan = f"; warmstart plan {shlex.join(self.chosen)} shows what fits"
        return (
            f"two steps of two layers fail on these nodes, also without {' '.join(self._on())} "
            f"({about}){plan if OUT_OF_MEMORY in failure.error else ''}"
        )
