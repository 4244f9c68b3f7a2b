"""The planner's memory forecast beside the bytes that tensors take in real steps on CPU.

    python -m tests.bench.bench_plan

Peak live tensor bytes of rank 0 in megabytes. The resident set, shown with them, also holds Python, verl and torch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.table import Result, publish
from tests.trainer.footprint import compare


def main() -> None:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for f in compare(Path(folder)):
            results.append(Result(f.case.name, "forecast", "MB", f.forecast / 1e6, f.peak / 1e6, "measured"))
            results.append(Result(f.case.name, "rss", "MB", f.rss / 1e6))
    publish("plan", results)


if __name__ == "__main__":
    main()
