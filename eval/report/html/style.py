"""The page's style sheet: colours (the same as in PNG files), rules, and rules for print."""

from __future__ import annotations

from collections.abc import Mapping

from common.plots import COLOURS, COLOURS_ON_DARK
from eval.report.html.one_file import source


def sheet() -> str:
    """Returns the whole style sheet. Each kind of line is a variable and a class, which sets the
    colour ``--ink``.
    """
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{_variables(COLOURS_ON_DARK)}}}\n"
    inks = "".join(
        f".{kind} {{ --ink: color-mix(in srgb, var(--{kind}) var(--mix, 100%), "
        "var(--into, transparent)); }\n"
        for kind in COLOURS
    )
    files = "".join(source(name) for name in ("page.css", "rollouts.css", "print.css"))
    return _variables(COLOURS) + dark + inks + files


def _variables(colours: Mapping[str, str]) -> str:
    values = " ".join(f"--{kind}: {colour};" for kind, colour in colours.items())
    return f":root {{ {values} }}\n"
