r"""Splits statements into normalised words, so that two spellings of one statement compare equal.

Deduplication and decontamination both compare problems through :func:`words`. It removes formatting
and operators: spacing, punctuation, braces, maths delimiters, sizes, fonts, figures. Letters and
digits remain in reading order: ``$\dfrac{1}{2}x_{1} \le 1{,}000$``, ``\frac12 x_1\leq 1,000`` and
``½x₁ ≤ 1000`` are all ``1 2 x 1 1000``. Without operators, ``x+y`` and ``x-y`` are the same words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Runs of letters or of digits. A letter of another script is a word by itself, so that two
# statements in Chinese are not equal just because they have the same numbers.
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\W_]")

# A superscript, subscript or fraction is a number of its own: 10³, x₁, 3¾.
_NUMERAL = re.compile("[²³¹⁰-\u209c¼-¾⅐-⅞]+")
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_FIGURE = re.compile(
    r"!\[[^\]\n]{0,200}\]\([^)\n]{0,2000}\)"
    r"|\\includegraphics(?:\[[^\]]{0,200}\])?\{[^}]{0,2000}\}",
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\s*\{[|clr ]*\})?")
# 1,000 and 1{,}000 and 1\,000 and 1,\!000.
_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:(?:\{,\}|,\\!|\\,|,)[0-9]{3})+(?![0-9])")
_NOT_DIGIT = re.compile(r"[^0-9]+")
# TeX takes one character as an argument without braces: \frac12 is 1/2, x_10 is x_1 0, A_iA_j is
# A_{i}A_{j}.
_TWO_ARGUMENTS = re.compile(r"\\((?:[dtc]?frac|[dt]?binom)(?![a-z]))\s*([a-z0-9])\s*([a-z0-9])")
_ONE_ARGUMENT = re.compile(r"(\\sqrt\s*(?=[0-9])|[_^]\s*)([a-z0-9])(?=[a-z0-9])")
# A command, also one escaped twice. Letters right after the line break \\ are read as a command,
# which keeps them.
_COMMAND = re.compile(r"\\+([a-z]*)")

_FORMATTING = """
    left right middle big bigl bigr bigg biggl biggr displaystyle textstyle limits nolimits quad
    qquad text textbf textit textrm textsf texttt mbox hbox mathrm mathbf mathbb mathcal mathit
    mathsf mathfrak mathop operatorname boldsymbol bold bf rm it emph overline underline bar
    overrightarrow vec hat widehat tilde
    overarc boxed label tag hline noindent
"""
# A fraction becomes its numerator and denominator, like 1/2.
_OPERATORS = """
    frac dfrac tfrac cfrac over cdot times div pm mp ast star bullet le leq leqslant ge geq geqslant
    ne neq not lt gt ll gg equiv approx sim simeq cong perp parallel mid nmid in notin ni subset
    subseteq supset setminus cup cap wedge vee to rightarrow leftarrow leftrightarrow mapsto implies
    iff longrightarrow ldots dots cdots vdots dotsc dotsb dotsm lfloor rfloor lceil rceil langle
    rangle lvert rvert vert lbrace rbrace lbrack rbrack
    circ degree prime colon backslash
"""
_DROPPED = frozenset((_FORMATTING + _OPERATORS).split())
_ALIASES = {"dbinom": "binom", "tbinom": "binom", "pmod": "mod", "bmod": "mod"} | {
    f"var{name}": name for name in ("phi", "epsilon", "theta", "rho", "sigma", "pi", "kappa")
}
_SYMBOLS = {
    "√": "sqrt",
    "△": "triangle",
    "∆": "triangle",
    "∠": "angle",
    "∞": "infty",
    "∑": "sum",
    "∏": "prod",
} | {
    "∫": "int",
    "□": "square",
}
_LETTERS = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma
    tau upsilon phi chi psi omega
"""
_FUNCTIONS = """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim int prod sqrt
    binom infty mod gcd lcm max min det
"""
_NAMES = frozenset((_LETTERS + _FUNCTIONS).split())
_SHORT = 2
_GREEK = re.compile(r"GREEK (?:SMALL|CAPITAL) LETTER (\w+)")


def words(text: str) -> list[str]:
    """Returns the lower-case words of a statement, in order. Pure; time linear in the text.

    A run of letters is one word as written: ``xy`` and ``x y`` differ.
    """
    if not text.isascii():
        text = _NON_ASCII.sub(_ascii, text)
    text = text.lower()
    if "[" in text:
        text = _FIGURE.sub(" ", _without_drawings(text))
    if "," in text:
        text = _THOUSANDS.sub(lambda match: _NOT_DIGIT.sub("", match[0]), text)
    if "\\" in text:
        text = _ENVIRONMENT.sub(" ", text)
        text = _TWO_ARGUMENTS.sub(r"\\\1 \2 \3 ", text)
    if "\\" in text or "_" in text or "^" in text:
        text = _COMMAND.sub(_command, _ONE_ARGUMENT.sub(r"\1\2 ", text))
    return _WORD.findall(text)


def is_symbol(word: str) -> bool:
    """Whether a word of :func:`words` stands in formulas: a number, a variable, an option's letter,
    a function ("3", "x", "ab", "sin"), or is as short ("of").
    """
    return word.isdecimal() or word in _NAMES or (len(word) <= _SHORT and word.isascii())


def _without_drawings(text: str) -> str:
    """Returns the text without ``[asy]..[/asy]``; linear, which a pattern is not."""
    first, *rest = text.split("[asy]")
    return " ".join([first, *(part.rpartition("[/asy]")[2] for part in rest)])


def _command(match: re.Match[str]) -> str:
    name = match[1]
    return " " if name in _DROPPED else f" {_ALIASES.get(name, name)} "


def _ascii(match: re.Match[str]) -> str:
    return _fold(match[0])


@lru_cache(maxsize=4096)
def _fold(run: str) -> str:
    letters = unicodedata.normalize("NFKD", _NUMERAL.sub(r" \g<0>", run))
    return "".join(map(_name, letters))


def _name(character: str) -> str:
    if character in _SYMBOLS:
        return f" {_SYMBOLS[character]} "
    if greek := _GREEK.fullmatch(unicodedata.name(character, "")):
        return f" {greek[1].lower().replace('lamda', 'lambda')} "
    # Accents and invisible characters occur inside a word and do not end it.
    return "" if unicodedata.category(character) in ("Mn", "Cf") else character
