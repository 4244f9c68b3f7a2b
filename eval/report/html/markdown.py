"""Converts the report's Markdown sections to HTML that a strict Content-Security-Policy allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

_RANGE = re.compile(r"\[[-+0-9.]+, [-+0-9.]+\]†?")


def html(text: str, label: str = "Table") -> Markup:
    """Returns HTML for paragraphs, lists, tables, emphasis and code; HTML in ``text`` is escaped.
    Aligned cells get the class ``end`` (right) or ``start`` instead of a style attribute; intervals
    in them are spans of the class ``range``, so that they stay on one line.

    Tables are in a box that scrolls; ``label`` is its name for screen readers.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("text", _text)
    tokens = markdown.parse(text)
    for i, token in enumerate(tokens):
        if i and tokens[i - 1].type == "td_open":
            for child in token.children or []:
                child.meta["cell"] = True
        if style := token.attrs.pop("style", None):
            token.attrs["class"] = "end" if style == "text-align:right" else "start"
    box = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}"><table>').format(
        label
    )
    out = markdown.renderer.render(tokens, markdown.options, {})
    return Markup(out.replace("<table>", box).replace("</table>", "</table></div>"))


def _text(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    text = str(escape(tokens[at].content))
    if "cell" not in tokens[at].meta:
        return text
    return _RANGE.sub(lambda found: f'<span class="range">{found[0]}</span>', text)
