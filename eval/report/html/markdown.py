"""The report's Markdown sections as HTML that a strict Content-Security-Policy lets be."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup


def html(text: str, label: str = "Table") -> Markup:
    """Paragraphs, lists, tables, emphasis and code; HTML in it is text, and alignment is the class ``end``.

    Tables are in a box that scrolls, which ``label`` names for those who do not see it.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if style := token.attrs.pop("style", None):
            token.attrs["class"] = "end" if style == "text-align:right" else "start"
    box = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}"><table>').format(label)
    out = markdown.renderer.render(tokens, markdown.options, {})
    return Markup(out.replace("<table>", box).replace("</table>", "</table></div>"))
