"""Finds LaTeX in a text, converts it to MathML and checks the result, because the page must not
trust it.

The converter is native code and its input is a model's text, so it runs in a process that can be
killed. Its output is parsed as XML, and unknown attributes are dropped. A formula that is too long,
that the converter refuses, that crashes its process or whose output has an unknown element stays
text.
"""

from __future__ import annotations

import html
import multiprocessing
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from xml.etree import ElementTree

from common.processes import limit_memory

Formula = tuple[str, str]
"""(LaTeX, its opening delimiter); the delimiter is empty if the entire text is one formula, and for
a box outside of delimiters.
"""
Tree = list["str | dict[str, str] | Tree"]
"""A MathML element: its name, its attributes if it has any, then its text or its children."""

LONGEST = 1_000
"""Maximum length of a formula, in characters."""
MOST = 300_000
"""Maximum number of formulas on a page; the rest stay text."""
LARGEST = 10.0
"""Largest number in an attribute (mostly em); larger or negative ones could move or hide other text
and are dropped.
"""
BATCH = 500
"""Formulas per call of the converter's process."""
TIMEOUT = 2.0
"""Time limit of a batch in seconds; a batch normally takes some hundredths of a second."""
FAILURES = 20
"""Number of failures, of batches and single formulas, after which formulas of failed batches stay
text without another try.
"""
MEMORY = 2 << 30
"""Bytes of address space of the converter's process."""
DEPTH = 60
"""Deepest nesting of elements."""

# An escaped character (so that \$ is no delimiter), or dollars.
_TOKEN = re.compile(r"\\[\s\S]|\$\$?")
# A box's beginning, an escaped character, or a brace.
_BRACE = re.compile(r"\\boxed\s*\{|\\[\s\S]|[{}]")
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}

# The converter emits these entities, which XML does not define.
_ENTITY = re.compile("&(?:ApplyFunction|InvisibleTimes);")
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
_LEAVES = {"mi", "mn", "mo", "ms", "mtext"}
_ELEMENTS = _LEAVES | {
    "math",
    "mrow",
    "mspace",
    "mfrac",
    "msqrt",
    "mroot",
    "mstyle",
    "mpadded",
    "mphantom",
    "msub",
    "msup",
    "msubsup",
    "munder",
    "mover",
    "munderover",
    "mmultiscripts",
    "mprescripts",
    "mtable",
    "mtr",
    "mtd",
    "menclose",
}
_ATTRIBUTES = {
    "display",
    "displaystyle",
    "scriptlevel",
    "mathvariant",
    "lspace",
    "rspace",
    "stretchy",
    "symmetric",
    "form",
    "fence",
    "separator",
    "largeop",
    "movablelimits",
    "minsize",
    "maxsize",
    "accent",
    "accentunder",
    "width",
    "height",
    "depth",
    "voffset",
    "linethickness",
    "columnspan",
    "rowspan",
}
_VALUE = re.compile(r"[-+.#%\w ]{1,40}", re.ASCII)
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_STYLES = re.compile(r"(?:text-align|justify-items|padding|border)(?:-\w+)*")
_MACROS = {"mbox": r"\text{#1}", "dotsm": r"\cdots", "dotsb": r"\cdots"}


def split(text: str) -> Iterator[str | Formula]:
    """Yields the text's plain parts and its formulas (in ``$``, ``$$``, ``\\(``, ``\\[``, or a bare
    ``\\boxed{...}``), in order and in linear time.

    A single dollar must touch the formula it opens or closes, and may not close one before a digit:
    prices stay text.
    """
    for piece in _delimited(text):
        if isinstance(piece, str) and r"\boxed" in piece:
            yield from _boxes(piece)
        else:
            yield piece


def _delimited(text: str) -> Iterator[str | Formula]:
    done, opened = 0, None
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if opened and mark == _CLOSING[opened[0]]:
            tex = text[opened.end() : token.start()]
            if _is_formula(mark, tex, text[token.end() : token.end() + 1]):
                if opened.start() > done:
                    yield text[done : opened.start()]
                yield tex, opened[0]
                done, opened = token.end(), None
            else:
                opened = token if mark in _CLOSING else None
        elif mark in _CLOSING and (not opened or opened[0][0] == "$" or mark[0] == "\\"):
            opened = token
    if done < len(text):
        yield text[done:]


def _boxes(text: str) -> Iterator[str | Formula]:
    """Yields a plain text's outermost balanced boxes that have content, and what is around them."""
    opened: list[re.Match[str]] = []
    found: list[tuple[int, int]] = []
    for token in _BRACE.finditer(text):
        if token[0][-1] == "{" and token[0] != r"\{":
            opened.append(token)
        elif token[0] == "}" and opened:
            first = opened.pop()
            start, end = first.start(), token.end()
            content = text[first.end() : min(token.start(), first.end() + LONGEST)]
            if first[0] != "{" and content.strip() and _is_formula("", text[start:end], ""):
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, end))
    done = 0
    for start, end in found:
        if start > done:
            yield text[done:start]
        yield text[start:end], ""
        done = end
    if done < len(text):
        yield text[done:]


def source(formula: Formula) -> str:
    """Returns the formula's source text, as :func:`split` found it."""
    tex, mark = formula
    return f"{mark}{tex}{_CLOSING.get(mark, '')}"


def convert(formulas: Iterable[Formula]) -> dict[Formula, Tree]:
    """Returns the tree of each distinct formula that was converted.

    The formulas of a failed batch are tried again one by one, until ``FAILURES`` failures have
    occurred.
    """
    from pebble import ProcessPool

    asked = list(dict.fromkeys(formulas))[:MOST]
    found: dict[Formula, Tree] = {}
    if not asked:
        return found
    failures = 0
    with ProcessPool(
        max_workers=1, initializer=_limit, context=multiprocessing.get_context("forkserver")
    ) as pool:

        def run(batches: list[list[Formula]]) -> list[list[Formula]]:
            nonlocal failures
            futures: list[Future] = [
                pool.schedule(_emit, args=[batch], timeout=TIMEOUT) for batch in batches
            ]
            failed = []
            for batch, future in zip(batches, futures, strict=True):
                if future.exception():
                    failed.append(batch)
                else:
                    emitted = zip(batch, future.result(), strict=True)
                    found.update(
                        (formula, tree) for formula, xml in emitted if (tree := check(xml))
                    )
            failures += len(failed)
            return failed

        for batch in run([asked[i : i + BATCH] for i in range(0, len(asked), BATCH)]):
            for formula in batch:
                if failures < FAILURES:
                    run([[formula]])
    return found


def check(xml: str | None) -> Tree | None:
    """Returns the tree of one ``<math>``, with only known, harmless attributes; None if it is not
    valid, has an unknown element or nests too deep.
    """
    if xml is None or "<!" in xml or "<?" in xml or len(xml) > 50 * LONGEST:
        return None
    try:
        root = ElementTree.fromstring(_ENTITY.sub(lambda entity: html.unescape(entity[0]), xml))
    except ElementTree.ParseError:
        return None
    return _tree(root, DEPTH) if root.tag == f"{_NAMESPACE}math" else None


def _is_formula(mark: str, tex: str, following: str) -> bool:
    if not tex.strip() or len(tex) > LONGEST or "\n\n" in tex:
        return False
    return mark != "$" or not (tex[0].isspace() or tex[-1].isspace() or following.isdigit())


def _limit() -> None:
    limit_memory(MEMORY)


def _emit(formulas: list[Formula]) -> list[str | None]:
    """Returns the converter's MathML for each formula; None where it refuses."""
    from math_core import LatexError, LatexToMathML

    converter = LatexToMathML(
        xml_namespace=True, fancy_error=False, macros=_MACROS, max_expansions=20
    )
    emitted: list[str | None] = []
    for tex, mark in formulas:
        try:
            emitted.append(
                converter.convert_with_local_state(tex.strip(), displaystyle=mark in ("$$", r"\["))
            )
        except LatexError:
            emitted.append(None)
    return emitted


def _tree(element: ElementTree.Element, depth: int) -> Tree | None:
    name = element.tag.removeprefix(_NAMESPACE)
    if name not in _ELEMENTS or depth == 0:
        return None
    attributes = {k: v for k, v in element.attrib.items() if k in _ATTRIBUTES and _is_mild(v)}
    if style := _style(element.get("style", "")):
        attributes["style"] = style
    head: Tree = [name, attributes] if attributes else [name]
    if name in _LEAVES:
        return [*head, "".join(element.itertext())]
    children = [_tree(child, depth - 1) for child in element]
    return None if None in children else [*head, *(c for c in children if c)]


def _style(text: str) -> str:
    pairs = [pair.partition(":")[::2] for pair in text.split(";")]
    kept = [
        f"{k.strip()}:{v.strip()}" for k, v in pairs if _STYLES.fullmatch(k.strip()) and _is_mild(v)
    ]
    return ";".join(kept)


def _is_mild(value: str) -> bool:
    return bool(_VALUE.fullmatch(value)) and all(
        0 <= float(n) <= LARGEST for n in _NUMBER.findall(value)
    )
