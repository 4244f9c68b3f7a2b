"""The planner's forecasts beside real steps on CPU.

    python -m tests.bench.bench_plan [CASES]      (of memory and of time; default all)

Memory: peak live tensor bytes of rank 0 in megabytes. The resident set, shown with them, also holds
Python, verl and torch. Time: a step as a multiple of the first case's with as many ranks, for the
planner knows GPUs and no CPU; the multiples should agree within a quarter.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench import pace
from tests.bench.table import Result, publish
from tests.trainer.planning import footprint

MULTIPLE = "x first"
WITHIN = 0.25
"""Tolerance of the forecast multiples: the host's own work and one thread's caches are not in the
forecast.
"""


def main() -> None:
    results = []
    first = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        for f in footprint.compare(Path(folder) / "memory", footprint.CASES[:first]):
            results.append(
                Result(f.case.name, "forecast", "MB", f.forecast / 1e6, f.peak / 1e6, "measured")
            )
            results.append(Result(f.case.name, "rss", "MB", f.rss / 1e6))
        for case, forecast, measured in pace.compare(Path(folder) / "time", pace.CASES[:first]):
            results.append(
                Result(case.name, "step forecast", MULTIPLE, forecast, measured, "measured")
            )
    publish("bench-plan", results)
    for r in results:
        if r.unit == MULTIPLE and r.ratio is not None and abs(r.ratio - 1) > WITHIN:
            print(f"  missed: {r.case} forecast {r.ours:.2f}, measured {r.peer:.2f}")


if __name__ == "__main__":
    main()
