"""Writes docs/measured.md, the measurements on GPUs, from the files of checks.

    python -m tests.gpu.measured docs/measured/*.jsonl > docs/measured.md

Without a file the page says that nothing was measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.text import markdown_table
from tests.gpu.cases import CASES, Case
from tests.gpu.rows import FAILED, SKIPPED, Row, Sheet, read

TITLE = """# Measured on GPUs
"""
NOTHING = """**Nothing has been measured on a GPU so far.** All figures for GPUs are forecasts
([limits.md](limits.md)), or come from runs on CPU cores."""
INTRODUCTION = """\
Every figure on this page comes from a file in docs/measured/, which `make gpu-check` wrote on one
GPU. To add a GPU, run on it (at most eight minutes, no network):

    make gpu-check OUT=docs/measured/NAME.jsonl
    python -m tests.gpu.measured docs/measured/*.jsonl > docs/measured.md

A machine that has PyTorch but not this project's environment needs the packages that
`make gpu-wheels` gathers:

    pip install --no-index --no-deps --target SITE .gpu-wheels/*.whl
    PYTHONPATH=SITE python -m tests.gpu.check --out docs/measured/NAME.jsonl

In the tables, *ratio* is our value over the peer's. A row with a limit fails above it; speeds have
no limit.
"""


def page(paths: Sequence[Path]) -> str:
    """The page of these files, newest check first. Raises ValueError for a file that is none, or a
    rehearsal's.
    """
    sheets = {path: read(path) for path in paths}
    for path, sheet in sheets.items():
        if sheet.run["mode"] == "rehearsal":
            raise ValueError(f"{path} is a rehearsal on a CPU, which measures nothing")
    newest = sorted(sheets.items(), key=lambda item: item[1].run["date"], reverse=True)
    parts = [TITLE, *([] if newest else [NOTHING, ""]), INTRODUCTION]
    for path, sheet in newest:
        parts += section(path, sheet)
    return "\n".join([*parts, *never(list(sheets.values()))]) + "\n"


def section(path: Path, sheet: Sheet) -> Iterator[str]:
    """One check."""
    run, counts = sheet.run, sheet.counts()
    packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items())
    yield f"## {run['device']}, {run['date'][:10]}"
    yield ""
    yield (
        f"{run['memory'] / 2**30:.0f} GiB, driver {run['driver']}, CUDA {run['cuda']}, NCCL "
        f"{run['nccl']}, Python {run['python']}, torch {run['torch']}, {packages}. Commit "
        f"{run['commit']}. Qwen3-4B's shape, {run['layers']} layers in full training, rows of at "
        f"most {run['length']:,} tokens; a {run['mode']} check. {counts['passed']} passed, "
        f"{counts['failed']} failed, {counts['skipped']} skipped ({path.name})."
        + ("" if sheet.closing else " **It was ended early.**")
    )
    yield ""
    titles = ("case", "metric", "ours", "peer", "ratio", "limit", "")
    yield markdown_table([titles, *map(cells, sheet.rows)], "llrrrrl")
    yield ""


def cells(row: Row) -> tuple[str, ...]:
    """Returns a row of the table."""
    status = (
        f"**{row.status}**" if row.status == FAILED else row.status if row.status == SKIPPED else ""
    )
    last = ": ".join(filter(None, [status, row.note]))
    peer = "" if row.peer is None else f"{number(row.peer)} ({row.peer_name})"
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    ours = f"{number(row.ours)} {row.unit}".strip()
    return (row.case, row.metric, ours, peer, ratio, number(row.limit), last)


def number(value: float | None) -> str:
    """Four digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def never(sheets: Sequence[Sheet]) -> Iterator[str]:
    """The cases without a figure in any file."""
    measured = {row.case for sheet in sheets for row in sheet.rows if row.status != SKIPPED}
    missing: list[Case] = [case for case in CASES if case.name not in measured]
    if not missing:
        return
    yield "## Never measured on a GPU"
    yield ""
    yield "Cases of the check:"
    yield ""
    yield from (f"- {case.name}: {case.about}" for case in missing)


def main() -> int:
    """Prints the page."""
    try:
        print(page([Path(name) for name in sys.argv[1:]]), end="")
    except ValueError as e:
        print(f"measured: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
