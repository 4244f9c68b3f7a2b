"""Figures of a dataset whose answers are stated numbers: operations, share of integers, range."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.text import markdown_table
from data_prep.synth.check_arithmetic import number


def number_facts(rows: Path, operations: Mapping[str, int]) -> dict[str, Any]:
    """Returns the figures over the rows of ``rows``, a rows.parquet, for the manifest.

    ``operations`` is row id -> number of ``<<...>>`` annotations of its solution. A figure is None
    when no row has an annotation, or no answer is a number.
    """
    import pyarrow.parquet as pq

    kept = pq.read_table(rows, columns=["id", "answer"])
    counts = [operations[row] for row in kept.column("id").to_pylist() if operations.get(row)]
    answers = [
        value for text in kept.column("answer").to_pylist() if (value := number(text)) is not None
    ]
    return {
        "operations_per_solution": sum(counts) / len(counts) if counts else None,
        "annotated_share": len(counts) / kept.num_rows,
        "integer_share": (
            sum(value.denominator == 1 for value in answers) / len(answers) if answers else None
        ),
        "smallest_answer": float(min(answers)) if answers else None,
        "largest_answer": float(max(answers)) if answers else None,
    }


def table(facts: Mapping[str, Any]) -> str:
    """Returns the figures as a Markdown table."""
    operations, integers = facts["operations_per_solution"], facts["integer_share"]
    lines = [("", "")]
    if operations is not None:
        share = facts["annotated_share"]
        which = "" if share == 1 else f" (of the {share:.1%} with annotations)"
        lines.append((f"operations per solution{which}", f"{operations:.1f}"))
    if integers is not None:
        smallest, largest = facts["smallest_answer"], facts["largest_answer"]
        lines.append(("integer answers", f"{integers:.1%}"))
        lines.append(("range of answers", f"{smallest:,.10g} to {largest:,.10g}"))
    return markdown_table(lines, "lr")
