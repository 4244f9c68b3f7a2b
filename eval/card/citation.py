"""The BibTeX entry in a card."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from common.text import fenced


def bibtex(
    key: str, title: str, authors: Sequence[str], made: float, commit: str, url: str | None
) -> str:
    """Returns the entry as a code block. ``made`` is a Unix time, ``commit`` the commit of the
    code; the fields ``authors`` and ``url`` are left out if empty.
    """
    year = str(datetime.datetime.fromtimestamp(made, datetime.UTC).year)
    facts = {"title": title, "author": " and ".join(authors), "year": year}
    facts["note"] = f"Made with Warmstart, commit {commit}"
    facts["howpublished"] = f"\\url{{{url}}}" if url else ""
    inner = "".join(f",\n  {name} = {{{value}}}" for name, value in facts.items() if value)
    return fenced(f"@misc{{{key}{inner}\n}}", "bibtex")
