"""The canonical spelling. ``spellings.jsonl`` has cases of every kind, right and wrong ones."""

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import read_jsonl
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.answers.normalise import LONGEST, normalise

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("spellings.jsonl").read_text().splitlines()
]
SECONDS = 0.02
"""Most processor time for a hostile answer. The slowest takes a fifth of it; quadratic time would
be a hundred times as long.
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['text'][27:-2]}")
def test_spellings(case: dict[str, str]) -> None:
    _, answer = grade_state(case["text"], "stop")
    assert answer is not None
    assert is_exact(answer, case["gold"]) == is_exact(case["gold"], answer) == case["exact"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['text'][27:-2]}")
def test_a_spelling_is_spelled_as_it_is(case: dict[str, str]) -> None:
    for answer in (case["gold"], grade_state(case["text"], "stop")[1] or ""):
        assert normalise(normalise(answer)) == normalise(answer)


PIECES = """
    \\frac \\sqrt \\cup \\pi \\in \\text{ \\ { } ( ) [ ] C A x m 1 2 0 th or ² √ °
    = . , ^ ' _ - + % /
"""


def test_a_spelling_of_anything_is_spelled_as_it_is() -> None:
    draw = random.Random(4)
    for _ in range(20_000):
        answer = "".join(draw.choices([*PIECES.split(), " "], k=draw.randint(1, 9)))
        assert normalise(normalise(answer)) == normalise(answer), answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("025", "25"),
        ("25.0", "25"),
        ("25.", "25"),
        ("+25", "25"),
        ("-007", "-7"),
        ("000", "0"),
        ("-0", "0"),
        ("$25$", "25"),
        (r"\$25", "25"),
        (r"25\%", "25"),
        ("25%", "25"),
        (r"25^\circ", "25"),
        (r"25^{\circ}", "25"),
        ("25°", "25"),
        ("1,625", "1625"),
        ("1{,}625", "1625"),
        ("12,345,678.5", "12345678.5"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{ (A) }", "(A)"),
        (r"\mathrm{\text{ab}}", "ab"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\tfrac12", r"\frac12"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"x \in [1,\, 2]", r"x\in[1,2]"),
        ("  5 ", "5"),
        ("016", "16"),
        (r"\mathbf{016}", "16"),
        ("{16}", "16"),
        (r"16\text{.}", "16"),
        (r"\(16\)", "16"),
        (".50", "0.5"),
        ("-0.0", "0"),
        ("- 1", "-1"),
        ("\N{MINUS SIGN}1", "-1"),
        ("{-1}", "-1"),
        (r"10,\!080", "10080"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        (r"12\,345", "12345"),
        (r"\$32,\!348", "32348"),
        (r"\$18.90", "18.9"),
        (r"25 \text{ percent}", "25"),
        (r"25^\circ\text{C}", "25"),
        (r"16\text{ cm}", "16"),
        ("16cm", "16"),
        (r"16\text{ min}", "16"),
        ("16 within reach", "16"),
        ("16 square units", "16"),
        (r"16\text{ km/h}", "16"),
        (r"864 \mbox{ inches}^2", "864"),
        (r"15\mbox{ cm}^2", "15"),
        (r"\frac{270}7\text{ degrees}", "270/7"),
        (r"\text{The answer is } 16", "16"),
        ("The answer is: 16.", "16"),
        ("Answer: 1,625 apples", "1625"),
        (r"\text{Area} = 16", "16"),
        ("x = 16", "16"),
        ("m + n = 16", "16"),
        ("a_{10} = -3", "-3"),
        ("f(2) = 3", "3"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac 34", "3/4"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"\cfrac{1}{2}", "1/2"),
        (r"\text{(C)}", "C"),
    ],
)
def test_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert is_exact(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("25", "26"),
        ("-25", "25"),
        ("2.50", "250"),
        ("0.5", r"\frac{1}{2}"),
        ("(1,234)", "(1234)"),
        (r"\leftarrow", "arrow"),
        ("", "0"),
        (None, "0"),
        ("0.05", "5"),
        ("-1", "1"),
        ("160", "16"),
        ("1.625", "1625"),
        ("1, 234", "1234"),
        ("12 34", "1234"),
        ("12xy", "12"),
        ("12 xy", "12"),
        (r"2\pi", "2"),
        ("16!", "16"),
        ("52_8", "52"),
        ("16 million", "16"),
        ("3 halves", "3"),
        ("3 eighths", "3"),
        ("3 dozens", "3"),
        (r"\text{ln }3", "3"),
        (".", "."),
        (r"16\text{ or more}", "16"),
        (r"16\text{ or }17", "1617"),
        (r"\text{minus }16", "16"),
        ("at least 16", "16"),
        ("5x - 7y + 11z + 4 = 0", "0"),
        ("x + y = 0", "0"),
        ("a = 1, b = 2", "2"),
        (r"1\frac{1}{2}", "11/2"),
        (r"\frac{}{}", "0"),
        ("x \\neq 16", "16"),
    ],
)
def test_different(one: str | None, other: str) -> None:
    assert not is_exact(one, other)


def test_long_answers() -> None:
    for part in (r"\text{", "{", "^ ", "0", "1,", "1 ", "$", r"\frac", "a ", "a_{1}+", "1 abcd"):
        answer = part * (LONGEST // len(part))
        assert normalise(answer) == normalise(answer + " ")
    for part in (" within", " obtain", " 16 in", " cm^2", "/cm", " abcd/in"):
        assert normalise("16" + part * (LONGEST // len(part) - 1) + "!").startswith("16")
    long = "0" * LONGEST + "7"
    assert is_exact(long + " ", long) and not is_exact(long, "7")


NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(lambda number: f"{number:f}"),
)
UNITS = (r"\text{ m}", r"\mathrm{~km} / \mathrm{h}", r"^{\circ}", r"\%", r"\,\Omega", " cm^2", "")
AROUND = ("{}", "${}$", r"\boxed{{{}}}", r"\left.{}\right.", r"x = {}", r"\text{{It is }}{}", "{}.")


@given(NUMBERS, st.sampled_from(UNITS), st.sampled_from(AROUND))
def test_a_number_stays_that_number(number: str, unit: str, around: str) -> None:
    spelled = normalise(around.format(number + unit))
    assert float(spelled) == float(number) and spelled == normalise(number) == normalise(spelled)


@given(NUMBERS, NUMBERS)
def test_two_numbers_are_two(one: str, other: str) -> None:
    assert is_exact(one, other) == (float(one) == float(other))
    for between in (" ", ", ", r"\text{ or }", r"^\circ ", "=", r"\\ "):
        assert not is_exact(one + between + "x" + other, one)
        assert not is_exact(one + between + other + "!", one)


PARTS = r"""
=|\in |x\in |\\|\\ |{|}|{}|{{}|1^{th}|^{th}|1 |1,000,|(C)|(A) or |\text{|\text{ m}|\text{m}/
m/s|\frac|\frac1|\boxed{|\left.|\! |\mu |\Omega|\cr |'|^{'|^ |°|^\circ|answer: |a |abcd |a+
a_{1}+|kg m |cm/|-cm|5 per |x=|1=|x=1,|{\rm m}|√|√(|½|²|₂|π|１|ﷺ|\|\ |+|-|.|e|e+|[|&|!|_
\rm |\text|$|%|\prime|\begin{pmatrix}
"""
AROUND_PARTS = (
    *(("", ""), ("16", ""), ("16 ", "!"), ("x=", "!"), ("(C) ", "")),
    *((r"16\text{", "}"), (r"\boxed{", "}")),
)


def hostile() -> dict[str, str]:
    """Answers of ``LONGEST`` characters that repeat one thing."""
    return {
        f"{before}{part}..{after}": (before + part * LONGEST)[: LONGEST - len(after)] + after
        for part in [" ", "\t", "\ue041", *PARTS.strip("\n").replace("\n", "|").split("|")]
        for before, after in AROUND_PARTS
    }


def test_hostile_answers_are_read_once() -> None:
    slow = {}
    for name, answer in hostile().items():
        begin = time.process_time()
        normalise(answer)
        if time.process_time() - begin > SECONDS:
            slow[name] = time.process_time() - begin
    assert not slow


def test_every_benchmark_answer_is_itself_in_other_words(benchmarks: Path) -> None:
    golds = {
        str(line["answer"]) for path in benchmarks.glob("*.jsonl") for line in read_jsonl(path)
    }
    for gold in golds:
        for other in (
            f" {gold} ",
            f"${gold}$",
            f"\\boxed{{{gold}}}",
            gold.replace(r"\frac", r"\dfrac").replace("-", "\N{MINUS SIGN}"),
            gold.replace("=", " = ").replace("+", " + ").replace(r"\\", r"\\ "),
            gold.replace(r"\pi", "π") + r"\ ",
            normalise(gold),
        ):
            assert is_exact(other, gold), (gold, other)
