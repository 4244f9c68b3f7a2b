"""Versions of the rules that decide what is right. A change of a rule raises its version.

What was made before versions were recorded counts as version 1.
"""

from __future__ import annotations

ANSWERS = 2
"""How an answer is found in a text and compared (``data_prep.answers``). Grades, metrics and
datasets record it.
"""
ROWS = 2
"""Which rows a dataset has: generated problems, filters, duplicates, benchmarks. Datasets record
it.
"""
UNRECORDED = 1
"""The version of files that record none."""


def current() -> dict[str, int]:
    """Returns the versions as a dataset records them."""
    return {"answers": ANSWERS, "rows": ROWS}


def of_dataset(settings: dict[str, object]) -> dict[str, int]:
    """Returns the versions under which a dataset with these recorded settings was built."""
    found = settings.get("rules", {})
    assert isinstance(found, dict)
    return dict.fromkeys(current(), UNRECORDED) | found
