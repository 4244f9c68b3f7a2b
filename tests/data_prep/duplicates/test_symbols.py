"""An overlap of digits, letters and functions alone is no evidence; a whole formula is."""

import pytest

from common.records import Problem
from data_prep.benchmarks.sets import read_problems
from data_prep.duplicates import benchmark_index
from data_prep.duplicates.benchmark_index import Index
from data_prep.duplicates.normalise_text import is_symbol
from tests.data_prep.duplicates.contamination import OWN, PREAMBLE, finding

FORMULAS = [
    r"Simplify $(v+5)(v-2) - (v-4)(v+7)$.",
    r"Solve for $y$: $3^{3y} = 81^\frac{1}{2}$.",
    r"Solve for $t$: $\frac{t}4 + \frac{t}6 = 10$",
    r"Simplify \[\frac{\csc z}{\tan z} - \frac{\tan z}{\sin z}.\]",
    r"If $h(x)=4x^2-3x+7$, what is the value of $h(-3)$?",
    r"If $w^2 - w - 1 = 0$, what is the value of $w^3 - 2w + 1$?",
    r"Find the minimum value of \[\frac{(s + 6)(s + 3)}{s + 2}\] for $s > 0.$",
    r"Expand and simplify completely: $y(y(1+y)+2y)-3(y^2-y+2)$",
]
CLEAN = [
    r"Draw $K=\{\vec{v}=(v_{1}, v_{2}, v_{5}, v_{4}) \in \mathbb{R}^{4}: |v_{2}| \leq 7\}$. ",
    r"Solve the inequality for $y$: $\frac{3 y+3}{y-1} \ge \frac{3 y}{2 y^2-y}$",
    r"Show that $3^{y}+3^{3 y}$ with $y = 1/2$ is smaller than $81$ minus $1^2$.",
    r"Solve the equation for $t$: $\frac{t}{t+4}-\frac{6}{t-6}=\frac{t-10}{t^2-10t}$",
    r"$f(z)=\tan z$ and $g(z)=\csc z$ meet the lines $z=\tan 1$ and $\sin z=\tan z$. ",
    r"The function $h$ is defined by $h(x)=x+7$. What is the value of $h(x)$ when $x=4$?",
    r"If $w_1$ and $w_2$ are roots of $3 w^2 - 2w - 1 = 0$, what is the value of $w_1 w_2 + 1$?",
    r"The equation $s^2+6s+3=0$ has roots $s_1$, $s_2$. Find $s_1 s_2 + 2(s_1 + s_2)$.",
    r"Solve for $y$: $\frac{3 y-1}{y+1}-\frac{2 y-3}{y-3}=\frac{-3 y^{2}}{y^{2}+3 y-2}$",
]


@pytest.fixture(scope="module")
def index() -> Index:
    formulas = [Problem(str(i), text, "", "formulas") for i, text in enumerate(FORMULAS)]
    return Index.build([*read_problems(OWN), *formulas])


@pytest.mark.parametrize("text", CLEAN)
def test_runs_of_digits_and_letters_are_no_evidence(text: str, index: Index) -> None:
    assert finding(text, index) is None


def test_without_the_rule_some_would_be(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_index, "REAL_WORDS", 0)
    assert sum(finding(text, index) is not None for text in CLEAN) >= 4


@pytest.mark.parametrize("number", range(len(FORMULAS)))
def test_the_whole_formula_is_evidence(number: int, index: Index) -> None:
    text = FORMULAS[number]
    exact, embedded = finding(text, index), finding(PREAMBLE + text + " Good luck!", index)
    assert exact is not None and (exact.kind, exact.id) == ("exact", str(number))
    assert embedded is not None and (embedded.kind, embedded.id) == ("near", str(number))


def test_a_partial_copy_of_symbols_alone_is_no_evidence() -> None:
    long = "Given " + " ".join(f"$a_{i}={i}$," for i in range(1, 20)) + " find their mean."
    index = Index.build([Problem("1", long, "10", "s")])
    copied = long.removesuffix(" find their mean.")
    assert (
        finding(copied[: len(copied) * 2 // 3] + " draw a graph of the seven lakes", index) is None
    )
    assert finding(long, index) is not None


def test_symbols() -> None:
    assert all(map(is_symbol, ["x", "12", "ab", "sin", "theta", "sqrt", "of"]))
    assert not any(map(is_symbol, ["chord", "the", "求", "triangle"]))
