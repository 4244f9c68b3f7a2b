"""Runs cases one after another, each in a process group of its own that ends at its limit or with
the check.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu import rows
from tests.gpu.bench import Bench, order
from tests.gpu.cases import Case
from tests.gpu.rows import FAILED, SKIPPED, Row
from tests.gpu.setting import Setting

ROOT = Path(__file__).resolve().parents[2]
CASE = "case"
"""Metric of the row of a case that failed or was skipped."""
ERROR = re.compile(r"(?:\[rank\d+\]: )?([\w.]*(Error|Exception|Interrupt|Exit)\b.*)")
"""The last line of a traceback, to which torch adds the rank."""


class Guard:
    """A shell outside of all groups that, when this process ends in any way, ends the running case
    and removes the folder. It waits for the pipe from here to close.
    """

    SCRIPT = """
        while read -r group; do last=$group; done
        [ -z "$last" ] || kill -KILL "-$last"
        rm -rf "$1"
    """

    def __init__(self, folder: Path) -> None:
        self.shell = subprocess.Popen(
            ["sh", "-c", self.SCRIPT, "sh", str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def watch(self, group: int | None) -> None:
        """Names the group that has to end with this process."""
        assert self.shell.stdin is not None
        self.shell.stdin.write(f"{group or ''}\n")
        self.shell.stdin.flush()

    def close(self) -> None:
        """Removes the folder."""
        self.shell.communicate()


@dataclass
class Runner:
    """A check of one setting."""

    setting: Setting
    folder: Path
    out: Path
    limit: float
    """Seconds of one case."""
    end: float
    """On the monotonic clock; nothing is started that is not expected to end by then."""
    short: bool = True

    def __post_init__(self) -> None:
        self.log = self.out.with_suffix(".log")
        self.passed: set[str] = set()

    def run(self, cases: Sequence[Case]) -> None:
        """Runs the cases; each leaves rows in the file."""
        guard = Guard(self.folder)
        try:
            for case in cases:
                seen = len(rows.read(self.out).rows)
                if reason := self._obstacle(case):
                    self._end(case, SKIPPED, reason)
                else:
                    self._process(case, guard, seen)
                for row in rows.read(self.out).rows[seen:]:
                    print(text(row), flush=True)
        finally:
            guard.close()

    def _obstacle(self, case: Case) -> str | None:
        """Returns the reason not to start the case, None without one."""
        if case.gpu and self.setting.device != "cuda":
            return "it needs a GPU"
        if missing := [name for name in case.needs if importlib.util.find_spec(name) is None]:
            return f"{' and '.join(missing)} is not installed"
        if absent := [name for name in case.after if name not in self.passed]:
            return f"it needs the case {', '.join(absent)}, which did not succeed"
        if self.short and case.unless in self.passed:
            return f"{case.unless} worked, which is the faster one"
        if (left := self._left()) < case.seconds:
            return f"{left:.0f} s were left, and it takes {case.seconds} s"
        return None

    def _process(self, case: Case, guard: Guard, seen: int) -> None:
        """Runs the case in a process; a failure is a row with the last line of its error."""
        limit = min(self.limit, self._left())
        with self.log.open("a") as log:
            start = log.tell()
            print(f"== {case.name}", file=log, flush=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.gpu.bench"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment(self.setting.device),
                text=True,
                start_new_session=True,
            )
            guard.watch(process.pid)
            try:
                process.communicate(
                    order(Bench(self.setting, self.folder, self.out, case)), timeout=limit
                )
                reason = None
            except subprocess.TimeoutExpired:
                reason = f"not done in {limit:.0f} s"
            except BrokenPipeError:  # it ended before it had read its order
                reason = None
            end_group(process.pid)
            code = process.wait()
            guard.watch(None)
        mine = rows.read(self.out).rows[seen:]
        if reason is None and code:
            reason = last_error(self.log, start) or f"exit code {code} without an error"
        if reason is None and not mine:
            reason = "it left no row"
        if reason is not None:
            self._end(case, FAILED, reason)
        elif all(row.status != FAILED for row in mine):
            self.passed.add(case.name)

    def _left(self) -> float:
        return self.end - time.monotonic()

    def _end(self, case: Case, status: str, note: str) -> None:
        rows.put(self.out, Row(case.name, CASE, status=status, note=note))


def end_group(group: int) -> None:
    """Kills what is left of a case's process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_error(log: Path, start: int) -> str | None:
    """The last line of the last exception in the log from byte ``start``."""
    with log.open("rb") as f:
        f.seek(start)
        lines = f.read().decode(errors="replace").splitlines()
    errors = [found[1] for line in lines if (found := ERROR.match(line))]
    return errors[-1].strip()[:300] if errors else None


def environment(device: str) -> dict[str, str]:
    """One rank, alone on this machine and its first GPU."""
    visible = (
        os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] if device == "cuda" else ""
    )
    return os.environ | {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": visible,
    }


def text(row: Row) -> str:
    """The row for the terminal."""
    parts = [f"{row.status:<8}{row.case:<20}{row.metric}"]
    if row.ours is not None:
        parts.append(f"{row.ours:.4g} {row.unit}".rstrip())
    if row.ratio is not None:
        parts.append(f"{row.ratio:.3f} x {row.peer_name} ({row.peer:.4g})")
    if row.limit is not None:
        parts.append(f"limit {row.limit:.4g}")
    if row.note:
        parts.append(row.note)
    return "  ".join(parts)


def header(
    setting: Setting, device: dict[str, Any], commit: str, *, short: bool, rehearsal: bool
) -> dict[str, Any]:
    """The file's first line."""
    load = setting.loads["full"]
    return device | {
        "commit": commit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "mode": "rehearsal" if rehearsal else "short" if short else "long",
        "layers": load.layers,
        "length": load.length,
    }
