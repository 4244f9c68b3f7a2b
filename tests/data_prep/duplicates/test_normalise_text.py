"""Statements as words: spellings of one statement are equal, different statements are not."""

import time

import pytest

from data_prep.benchmarks.sets import load, read_problems
from data_prep.duplicates.normalise_text import words
from tests.data_prep.duplicates.contamination import OWN, retexed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac12", r"\frac{1}{2}"),
        (r"$\dfrac mn$", r"\(m/n\)"),
        ("x_{1}", "x_1"),
        ("10^{3}", "10^3"),
        ("x_10", "x_{1}0"),
        ("A_iA_{i+1}", "A_{i}A_{i + 1}"),
        (r"\log_264", r"\log_{2} 64"),
        (r"1{,}000 \text{ cm}", "1,000 cm"),
        (r"1,\!000,\!000", "1000000"),
        (r"\left( a + b \right)\cdot c", "(a+b) × c"),
        (r"\[x\leq 3\quad\displaystyle\]", "x ≤ 3"),
        (r"\sqrt{2}\,\pi\alpha", "√2 π𝛼"),
        ("3¾ of 10³", r"3 \tfrac{3}{4} of $10^3$"),
        ("Poincaré’s “half–plane”", 'Poincare\'s "half-plane"'),
        (
            r"\\frac{m}{n} \\le \\sqrt2",
            r"\frac mn\le\sqrt{2}",
        ),  # escaped twice, as one AIME 2025 text is
        (r"\begin{align*} a &= 1 \\ b &= 2 \end{align*}", "a=1, b=2"),
        ("zero\u200bwidth\u00a0space", "zerowidth space"),
        ("[asy] draw((0,0)--(1,1)); [/asy] Find x.", "![figure](https://a.example/1.png) find x"),
    ],
)
def test_spellings_of_one_statement_have_the_same_words(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_different_statements_have_different_words() -> None:
    assert words("x^{10}") != words("x^{1}0")
    assert words("{1, 000}") != words("1,000")
    assert words("求 3 的平方") != words("求 3 的立方")
    assert words(r"\frac{1}{2}") == ["1", "2"] != words("12")


@pytest.mark.parametrize("kind", ["own", "real"])
def test_respacing_and_retexing_keep_every_benchmark_statements_words(
    kind: str, request: pytest.FixtureRequest
) -> None:
    sets = ["aime2025", "aime2026", "amc2023"]
    if kind == "own":
        problems = [p for p in read_problems(OWN) if p.set in sets]
    else:
        problems = load(request.getfixturevalue("benchmarks"), sets, None)
    for p in problems:
        assert words(retexed(p.problem)) == words(p.problem)
        assert words(" \n ".join(p.problem.split(" "))) == words(p.problem)


@pytest.mark.parametrize("piece", ["[asy]", "![", "![](", "\\includegraphics[", "[asy] x [/asy]"])
def test_hostile_figures_take_linear_time(piece: str) -> None:
    start = time.process_time()
    words(piece * 40_000)
    assert time.process_time() - start < 5


def test_drawings_are_no_words() -> None:
    assert words("Find [asy]draw(A);[/asy] $x$ ![](a.png) now") == ["find", "x", "now"]
