"""Converts an answer's LaTeX or Unicode to one plain string, for the rules of
``data_prep.answers.normalise``.

Linear in the length of the text, except that each level of nested braces copies its content.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

ROMAN = "\ue041-\ue05a\ue061-\ue07a"
"""Character class of the letters of ``\\text{..}``, ``\\mathrm{..}`` and the like in the string of
``flat``: words and units, never variables.
"""

_TO_ROMAN = {ord(letter): 0xE000 + ord(letter) for letter in string.ascii_letters}
_FROM_ROMAN = {roman: plain for plain, roman in _TO_ROMAN.items()}

_ROMAN_COMMANDS = {
    rf"\{name}"
    for name in (
        *(f"text{style}" for style in ("", "bf", "it", "rm", "md", "sf", "tt", "up", "normal")),
        *("mathrm", "mathsf", "mbox", "hbox", "operatorname", "emph", "rm", "textsuperscript"),
    )
}
_WRAPPERS = _ROMAN_COMMANDS | {r"\mathbf", r"\mathit", r"\boldsymbol", r"\bm", r"\bf", r"\it"}
_DECLARATIONS = {r"\rm", r"\bf", r"\it"}
"""Commands that hold until the end of their group."""

_NOTHING = re.compile(
    r"(?<!\\)\\(?:(?:left|right)(?![a-zA-Z])(?:\s*\.)?|[bB]igg?[lrm]?(?![a-zA-Z])|!\s*)"
)
"""Sizes, a delimiter that is not there, and a space of no width (``1,\\! 625``)."""
_TOKEN = re.compile(
    r"\\\\(?:\[[0-9.]{1,9} ?[a-z]{2}\])?|\\(?:[a-zA-Z]+|[^a-zA-Z]|$)|[{}]|[^\\{}]+", re.DOTALL
)
_SPELLED = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\leq": r"\le",
    r"\leqslant": r"\le",
    r"\geq": r"\ge",
    r"\geqslant": r"\ge",
    r"\neq": r"\ne",
    r"\rightarrow": r"\to",
    r"\varnothing": r"\emptyset",
    r"\lt": "<",
    r"\gt": ">",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\vert": "|",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\mid": "|",
    r"\prime": "'",
    r"\degree": "°",
    **dict.fromkeys((r"\displaystyle", r"\textstyle", r"\limits"), ""),
    **dict.fromkeys((r"\,", r"\;", r"\:", r"\>", r"\ ", "\\\n", "\\\t", "\\"), " "),
    **dict.fromkeys(
        (r"\quad", r"\qquad", r"\enspace", r"\thinspace", r"\space", r"\$", r"\%"), " "
    ),
    **dict.fromkeys((r"\(", r"\)", r"\[", r"\]"), " "),
}
_IDLE = str.maketrans(dict.fromkeys("$%~€£¥¢\t\n\r", " "))

_BRACKETS = ("langle", "rangle", "lfloor", "rfloor", "lceil", "rceil")
_SYMBOLS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-"),
    **dict.fromkeys("\u2032\u2019", "'"),
    **dict.fromkeys("\u2033\u201d", "''"),
    **dict.fromkeys("\u2044\u2215", "/"),
    "∣": "|",
    **{sign: rf"\{name} " for sign, name in zip("⟨⟩⌊⌋⌈⌉", _BRACKETS, strict=True)},
    "º": "°",
    "×": r"\times ",
    "÷": r"\div ",
    "±": r"\pm ",
    "∓": r"\mp ",
    **dict.fromkeys("·⋅∙", r"\cdot "),
    **dict.fromkeys("≤⩽", r"\le "),
    **dict.fromkeys("≥⩾", r"\ge "),
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "∞": r"\infty ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "⊂": r"\subset ",
    "⊆": r"\subseteq ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "∠": r"\angle ",
    "→": r"\to ",
    "∛": r"\sqrt[3]",
    "\u00b5": r"\mu ",
    "\u2126": r"\Omega ",
    "℃": "°C",
    "℉": "°F",
    **{letter: rf"\mathbb {plain}" for letter, plain in zip("ℂℕℚℝℤ", "CNQRZ", strict=True)},
}


def _greek() -> dict[str, str]:
    """Returns {letter: command}, for the letters that have one in LaTeX."""
    named = {}
    for code in range(0x391, 0x3CA):
        name = unicodedata.name(chr(code), "").split()
        if len(name) == 4 and name[3] not in ("OMICRON", "LAMDA"):
            small = name[1] == "SMALL"
            named[chr(code)] = f"\\{name[3].lower() if small else name[3].capitalize()} "
    return named | {"λ": r"\lambda ", "Λ": r"\Lambda ", "ϕ": r"\phi ", "ϵ": r"\epsilon "}


def _fractions() -> dict[str, str]:
    return {
        char: rf"\frac{over}{under if len(under) == 1 else f'{{{under}}}'}"
        for char in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
        for over, under in [unicodedata.normalize("NFKC", char).split("\u2044")]
    }


def _variants() -> dict[str, str]:
    """Returns {sign: plain sign} for wide signs and for alphabets of mathematics."""
    codes = [*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800)]
    plain_signs = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in codes}
    return {sign: _greek().get(found, found) for sign, found in plain_signs.items()}


_UNICODE = str.maketrans(
    {
        **_variants(),
        **{
            sign: f" {command}" if command[:1] == "\\" else command
            for sign, command in {**_greek(), **_fractions(), **_SYMBOLS}.items()
        },
        **{chr(roman): "\ufffd" for roman in _FROM_ROMAN},
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u202a\u202b\u202c\u202d\u202e", ""),
    }
)
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₕₖₗₘₙₚₛₜ]+")
_ROOT = re.compile(r"√\s*(?:([0-9.]+)|\(([^()]*)\))?")
_ONE = re.compile(r"\\[a-zA-Z]+|[^\\{}]")
"""An argument that needs no braces: one character or command."""
_LETTERS = re.compile(r"\\?[a-zA-Z]+")
_PRIMES = re.compile(r"\^\s*(?:('+)|\{\s*('+)\s*\})")
_DEGREES = re.compile(
    rf"(?:\^ ?)?(?:°|\\circ(?![a-zA-Z]))(?: ?(?:[\ue043\ue046](?![{ROMAN}])|[CF](?![a-zA-Z])))?"
)
_NO_ROW = re.compile(r"\\cr ?(?=\\(?:cr|end)(?![a-zA-Z]))")
_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+) (?=[a-zA-Z])")
_IDLE_SPACE = re.compile(r" (?!(?<![_^][0-9] )(?<=[0-9] )[0-9]|(?<=[a-zA-Z]{2} )[a-zA-Z]{2})")
_KEPT = "\x1f"


def flat(answer: str) -> str:
    """Returns an answer as one string: Unicode signs are commands; wrappers, sizes, currencies,
    percent, degree signs, trailing periods, and braces around one character, the whole answer or
    the whole answer's box are gone; runs of white space are one space, and letters of words are
    in ``ROMAN``.
    """
    if not answer.isascii():
        answer = _commands(answer)
    if "\\" in answer or "{" in answer or "}" in answer:
        answer = _unwrapped(answer)
    text = answer.translate(_IDLE)
    if "'" in text:
        text = _PRIMES.sub(lambda m: m[1] or m[2], text)
    if "circ" in text or "°" in text:
        text = _DEGREES.sub(lambda m: " " if m[0][0] == "^" or "°" in m[0] else m[0], text)
    text = " ".join(text.split())
    if r"\cr" in text:
        text = _NO_ROW.sub("", text)
    while (shorter := text.rstrip(". ").removesuffix(r"\cr")) != text:
        text = shorter
    return text.lstrip("+ ")


def plain(text: str) -> str:
    """Returns a string of ``flat`` with ordinary letters in its words."""
    return text if text.isascii() else text.translate(_FROM_ROMAN)


def tight(text: str) -> str:
    """Returns a string of ``flat`` with ordinary letters and without spaces, except between two
    numbers (not after a script), two words of at least two letters, or a command and a letter.
    """
    text = plain(text)
    if "\\" in text:
        text = _AFTER_COMMAND.sub(rf"\1{_KEPT}", text)
    return _IDLE_SPACE.sub("", text).replace(_KEPT, " ").strip(" ")


def _commands(answer: str) -> str:
    """Returns the answer with commands for what Unicode has as one character."""
    answer = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", answer)
    answer = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", answer)
    answer = answer.translate(_UNICODE)
    if "√" not in answer:
        return answer
    return _ROOT.sub(lambda m: rf" \sqrt{{{m[1] or m[2]}}}" if m[1] or m[2] else r" \sqrt ", answer)


def _unwrapped(answer: str) -> str:
    """Returns the answer without the wrappers, sizes and braces that mean nothing."""
    groups: list[list[str]] = [[]]
    for token in _TOKEN.findall(_NOTHING.sub("", answer)):
        if token == "{":
            groups.append([])
        elif token == "}" and len(groups) > 1:
            inner = groups.pop()
            groups[-1].append(_group(inner, groups[-1]))
        elif token[0] != "\\":
            groups[-1].append(token.translate(_IDLE))
        else:
            groups[-1].append(_spelled(token))
    pieces = groups[0]
    for unclosed in groups[1:]:
        pieces += ["{", *unclosed]
    while pieces and not pieces[-1].strip(" ."):
        pieces.pop()
    content = _content(pieces)
    return content[1:-1] if _is_group(content) and len(_filled(pieces)) == 1 else content


@lru_cache(1024)
def _spelled(command: str) -> str:
    if command[:2] == r"\\":
        return r"\cr "
    is_sign = command[1:2] in "{}|" or command[1:2].isalpha()
    return _SPELLED.get(command, command if is_sign else command[1:])


def _group(inner: list[str], before: list[str]) -> str:
    """Returns the text that replaces a group after the pieces ``before``; removes a wrapper at
    their end.
    """
    content = _content(inner)
    filled = _filled(inner)
    if filled and filled[0] in _DECLARATIONS:
        return f" {_roman(content.replace(filled[0], '', 1), filled[0])} "
    while before and not before[-1].strip(" "):
        before.pop()
    if before and before[-1] in _WRAPPERS:
        content = _roman(content, before.pop())
        is_script = bool(before) and before[-1].rstrip(" ")[-1:] in ("^", "_")
        return f"{{{content}}}" if is_script and len(content.strip(" ")) > 1 else f" {content} "
    if not content.strip(" ") and not (before and before[-1][:1] == "\\"):
        return ""
    if _ONE.fullmatch(single := content.strip(" ")):
        return single if not single[-1:].isalpha() else f" {single} "
    return content if len(filled) == 1 and _is_group(content) else f"{{{content}}}"


def _content(pieces: list[str]) -> str:
    """Returns the joined pieces; if they are one box, its content."""
    filled = _filled(pieces)
    if len(filled) == 2 and filled[0] in (r"\boxed", r"\fbox"):
        if _is_group(filled[1]):
            return filled[1][1:-1]
        if _ONE.fullmatch(filled[1].strip(" ")):
            return filled[1]
    return "".join(pieces)


def _filled(pieces: list[str]) -> list[str]:
    return [piece for piece in pieces if piece.strip(" ")]


def _is_group(piece: str) -> bool:
    return piece[:1] == "{" and piece[-1:] == "}"


def _roman(content: str, wrapper: str) -> str:
    if wrapper not in _ROMAN_COMMANDS:
        return content
    return _LETTERS.sub(lambda m: m[0] if m[0][0] == "\\" else m[0].translate(_TO_ROMAN), content)
