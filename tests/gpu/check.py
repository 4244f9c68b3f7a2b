"""Correctness and speed on one CUDA device, in at most eight minutes: ``make gpu-check``.

    python -m tests.gpu.check --out FILE [--cases NAME ...] [--limit SECONDS]
                              [--long] [--length TOKENS] [--rehearse]

Rows go to FILE as JSON lines the moment they are known, all output of the cases to FILE's name with
.log. What is not installed is a row that says so. Exit code 0: all passed; 1: something failed; 2:
wrong arguments; 3: no device.

``--long`` takes all layers that fit, more steps and every setting, without the eight minutes.
``--rehearse`` runs everything tiny on the CPU: it shows that a machine has what the check needs.

A machine without the project's environment needs a folder with the packages of ``make gpu-wheels``
on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu import cases, rows, setting
from tests.gpu.rows import CLOSING, FAILED, PASSED, RUN, SKIPPED
from tests.gpu.runner import ROOT, Runner, header

TOTAL, LIMIT = 470.0, 70.0
LONG_TOTAL, LONG_LIMIT = 7200.0, 900.0
"""Seconds of a check and of one case."""
NO_DEVICE = "gpu-check needs a CUDA device, and there is none here."


def main() -> int:
    """Runs the check and returns its exit code."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(prog="gpu-check")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="NAME", help=" ".join(cases.NAMES)
    )
    parser.add_argument("--limit", type=float, help="seconds of one case")
    parser.add_argument(
        "--long", action="store_true", help="all layers that fit, more steps, every setting"
    )
    parser.add_argument(
        "--length", type=int, default=8192, help="tokens of the longest row and of a micro-batch"
    )
    parser.add_argument("--rehearse", action="store_true", help="everything tiny on the CPU")
    parser.add_argument(
        "--commit", default=commit(), help="what is measured, where there is no git checkout"
    )
    options = parser.parse_args()
    short = not options.long
    try:
        wanted = cases.chosen(options.cases, short=short)
        if options.out.exists():
            raise ValueError(f"{options.out} exists already: name another file with --out")
        device: dict[str, Any] | None = {"device": "CPU"} if options.rehearse else probe()
        if device is None:
            print(NO_DEVICE)
            return 3
        if options.rehearse:
            chosen = setting.rehearsal()
        else:
            chosen = setting.on_gpu(device["device"], device["memory"], options.length, short=short)
    except ValueError as e:
        print(f"gpu-check: {e}")
        return 2
    limit = options.limit or (LIMIT if short and not options.rehearse else LONG_LIMIT)
    total = TOTAL if short and not options.rehearse else LONG_TOTAL
    options.out.parent.mkdir(parents=True, exist_ok=True)
    first = header(chosen, device, options.commit, short=short, rehearsal=options.rehearse)
    rows.append(options.out, {RUN: first})
    print(
        f"{first['device']}: {first['layers']} layers, rows of at most {first['length']:,} tokens",
        flush=True,
    )
    runner = Runner(
        chosen,
        Path(tempfile.mkdtemp(prefix="gpu-check-")),
        options.out,
        limit,
        begin + total,
        short,
    )
    runner.run(wanted)
    return close(options.out)


def close(out: Path) -> int:
    """Adds the last line, prints it, and returns the exit code."""
    counts = rows.read(out).counts()
    rows.append(out, {CLOSING: counts})
    words = ", ".join(f"{counts[status]} {status}" for status in (PASSED, FAILED, SKIPPED))
    print(f"gpu-check: {words} ({out})")
    return 1 if counts[FAILED] else 0


def probe() -> dict[str, Any] | None:
    """The first device and the versions, None without one; asked in a process that leaves the
    device at once.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.kernels"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(
            f"PyTorch does not start: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        )
    found: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def commit() -> str:
    """The commit of this checkout, with a plus when files differ from it; unknown without git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip()[:12] + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    sys.exit(main())
