"""Converts the report's Markdown sections to HTML that a strict Content-Security-Policy allows."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup


def html(text: str, label: str = "Table") -> Markup:
    """Returns HTML for paragraphs, lists, tables, emphasis and code; HTML in ``text`` is escaped.
    Aligned cells get the class ``end`` (right) or ``start`` instead of a style.

    Tables are in a box that scrolls; ``label`` is its name for screen readers.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if style := token.attrs.pop("style", None):
            token.attrs["class"] = "end" if style == "text-align:right" else "start"
    box = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}"><table>').format(
        label
    )
    out = markdown.renderer.render(tokens, markdown.options, {})
    return Markup(out.replace("<table>", box).replace("</table>", "</table></div>"))
