"""Prints every case beside the planner: live bytes, FLOPs and memory traffic.

python -m tests.cuda.table [quick | wide | whole]      (default: quick)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.cuda import paper
from tests.cuda.cases import QUICK, WHOLE, WIDE
from tests.cuda.forecast import compare

SETS = {"quick": QUICK, "wide": WIDE, "whole": WHOLE}


def main(chosen: str) -> None:
    """Runs the cases and prints them: counted, and as a share of the planner's figure."""
    cases = SETS[chosen]
    with tempfile.TemporaryDirectory() as folder:
        library = paper.build(Path(folder))
        for number, (case, step) in enumerate(
            zip(cases, paper.run(library, Path(folder), cases), strict=True)
        ):
            rows = list(compare(step))
            if number == 0:
                print("| case | " + " | ".join(f"{row.what}, {row.unit}" for row in rows) + " |")
                print("|---|" + "---:|" * len(rows))
            print(
                f"| {case.name} | "
                + " | ".join(f"{row.counted:.2f} ({row.ratio:.3f})" for row in rows)
                + " |"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "quick")
