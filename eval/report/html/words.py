r"""The beginning of a problem as one line of plain text: the name of its row on the page.

LaTeX becomes readable characters: ``$\frac{1}{2} \le x^2$`` is ``1/2 ≤ x²``.
"""

from __future__ import annotations

import re

LONGEST = 140
"""Maximum length of a label, in characters."""
READ = 600
"""Number of a problem's characters that are read for its label."""
ROUNDS = 5
"""Maximum depth of nested commands that are resolved; deeper ones only lose their braces."""

_SYMBOLS = {
    "times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "ast": "*", "star": "⋆",
    "le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥", "geqslant": "≥", "lt": "<",
    "gt": ">", "ne": "≠", "neq": "≠", "equiv": "≡", "approx": "≈", "sim": "∼", "cong": "≅",
    "infty": "∞", "to": "→", "rightarrow": "→", "mapsto": "↦", "implies": "⇒", "iff": "⇔",
    "in": "∈", "notin": "∉", "subset": "⊂", "subseteq": "⊆", "cup": "∪", "cap": "∩",
    "setminus": "∖", "emptyset": "∅", "varnothing": "∅", "forall": "∀", "exists": "∃", "mid": "|",
    "vert": "|", "parallel": "∥", "perp": "⊥", "angle": "∠", "triangle": "△", "odot": "⊙",
    "circ": "°", "degree": "°", "sum": "∑", "prod": "∏", "int": "∫", "partial": "∂", "nabla": "∇",
    "sqrt": "√", "ldots": "…", "cdots": "…", "dots": "…", "vdots": "…", "prime": "′",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "langle": "⟨", "rangle": "⟩",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε",
    "zeta": "ζ", "eta": "η", "theta": "θ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "varphi": "φ", "chi": "χ",
    "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ",
    "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω",
    "left": "", "right": "", "big": "", "Big": "", "bigl": "", "bigr": "", "displaystyle": "",
    "quad": " ", "qquad": " ", "limits": "", "item": "•",
}  # fmt: skip
_WRAPPERS = (
    "text|textbf|textit|textrm|mathrm|mathbf|mathbb|mathcal|mathit|mathsf|operatorname|boxed|bold|"
    "overline|underline|widehat|hat|vec|bar|mbox|emph|overrightarrow|boldsymbol"
)
_ROOM = r"\s*\{([^{}]*)\}"
_FRACTION = re.compile(rf"\\[dtc]?frac{_ROOM}{_ROOM}")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_BINOMIAL = re.compile(rf"\\[dt]?binom{_ROOM}{_ROOM}")
_ROOT = re.compile(rf"\\sqrt{_ROOM}")
_WRAPPED = re.compile(rf"\\(?:{_WRAPPERS})\*?{_ROOM}")
_SCRIPT = re.compile(r"([\^_])\s*(?:\{([^{}\\]*)\}|(\w))")
_HIGH = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
_LOW = str.maketrans("0123456789+-n", "₀₁₂₃₄₅₆₇₈₉₊₋ₙ")
_SMALL = re.compile(r"[\d+\-n]+", re.ASCII)
_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|$)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w*\*?\}(?:\{[lcr|]*\})?")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def words(problem: str) -> str:
    """Returns at most ``LONGEST`` characters, the last one an ellipsis if the text is longer; empty
    if the problem has no words.
    """
    text = problem[:READ]
    text = _ENVIRONMENT.sub(" ", _DRAWING.sub(" ", text))
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$\$?|\\[,;:!]|(?<!\\)&", "", text).replace(r"\\", " ")
    text = text.replace(r"^\circ", "°").replace(r"^{\circ}", "°")
    text = _SHORT_FRACTION.sub(r"\1/\2", text)
    for _ in range(ROUNDS):
        before = text
        text = _SCRIPT.sub(_script, text)
        text = _ROOT.sub(lambda m: f"√{_grouped(m[1])}", text)
        text = _FRACTION.sub(lambda m: f"{_grouped(m[1])}/{_grouped(m[2])}", text)
        text = _BINOMIAL.sub(r"C(\1, \2)", text)
        text = _WRAPPED.sub(r"\1", text)
        if text == before:
            break
    text = _COMMAND.sub(lambda m: _SYMBOLS.get(m[1], m[1]), text)
    text = re.sub(r"(?<!\\)[{}]", "", text)
    text = _SPACE.sub(" ", re.sub(r"\\([^\w\s])", r"\1", text)).strip()
    if len(text) <= LONGEST and len(problem) <= READ:
        return text
    short = text[: LONGEST - 1]
    return f"{short.rpartition(' ')[0] or short}…"


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"\w+|\\?\w+", text.strip()) else f"({text.strip()})"


def _script(found: re.Match[str]) -> str:
    text = (found[2] if found[2] is not None else found[3]).strip()
    if _SMALL.fullmatch(text):
        return text.translate(_HIGH if found[1] == "^" else _LOW)
    return f"{found[1]}{_grouped(text)}" if text else ""
