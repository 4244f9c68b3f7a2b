import time

import pytest

from data_prep.answers import grade_state, is_exact, last_box, normalise, visible

THINK = "<think>hmm</think>"


@pytest.mark.parametrize(
    ("text", "finish", "state", "extracted"),
    [
        (THINK + r"So \boxed{70}.", "stop", "boxed", "70"),
        (THINK + r"So \boxed{70}.", "length", "boxed", "70"),
        (THINK + r"\boxed{1} or \boxed{2}", "stop", "boxed", "2"),
        (THINK + r"\boxed{\frac{1}{\sqrt{2}}}", "stop", "boxed", r"\frac{1}{\sqrt{2}}"),
        (THINK + r"\boxed{1} then \boxed{2", "stop", "boxed", "1"),
        (THINK + r"\boxed {3}", "stop", "boxed", "3"),
        (THINK + r"\boxed{\{1, 2\}}", "stop", "boxed", r"\{1, 2\}"),
        (THINK + r"\boxed{\left\{ x \right.}", "stop", "boxed", r"\left\{ x \right."),
        (THINK + r"\boxed{a \\{b}}", "stop", "boxed", r"a \\{b}"),
        (THINK + r"\boxed{\boxed{5}}", "stop", "boxed", "5"),
        (THINK + r"} \boxed{4} }", "stop", "boxed", "4"),
        (THINK + r"\boxed{}", "stop", "boxed", ""),
        (THINK + r"\fbox{4}", "stop", "no_box", None),
        (THINK + r"\boxed 4", "stop", "no_box", None),
        (THINK + "The answer is 4.", "stop", "no_box", None),
        (THINK + "The answer is 4.", "length", "truncated", None),
        (THINK + r"\boxed{4", "stop", "unclosed_box", None),
        (THINK + r"\boxed{4", "length", "truncated", None),
        (r"<think>\boxed{4}</think>It is four.", "stop", "box_in_think_only", None),
        (r"<think>\boxed{4}</think>It is four.", "length", "truncated", None),
        (r"<think>\boxed{4}</think>\boxed{5}", "stop", "boxed", "5"),
        (r"<think>\boxed{4}", "stop", "box_in_think_only", None),
        (r"<think>\boxed{4}", "length", "truncated", None),
        (r"<think>hm \boxed{4", "stop", "no_box", None),
        (r"hm \boxed{4}</think>\boxed{5}", "stop", "boxed", "5"),
        (r"hm \boxed{4}</think> four", "stop", "box_in_think_only", None),
        (r"<think>a</think>\boxed{1}</think>two", "stop", "box_in_think_only", None),
        (r"<think>a</think>\boxed{1}<think>\boxed{2}", "length", "boxed", "1"),
        # A base model does not think.
        (r"Answer: \boxed{4}", "stop", "boxed", "4"),
        (r"Answer: \boxed{4} and on and on", "length", "boxed", "4"),
        (r"Answer: \boxed{4", "stop", "unclosed_box", None),
        ("", "stop", "no_box", None),
        ("", "length", "truncated", None),
    ],
)
def test_grade_state(text: str, finish: str, state: str, extracted: str | None) -> None:
    assert grade_state(text, finish) == (state, extracted)


def test_visible() -> None:
    assert visible("plain") == "plain"
    assert visible("<think>a") is None
    assert visible("<think>a</think>b") == "b"


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
    ],
)
def test_different(one: str | None, other: str) -> None:
    assert not is_exact(one, other)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" + "{" * 1_000_000,
        "\\boxed{" * 200_000,
        "\\boxed" + " " * 1_000_000,
        "\\boxed{" + "{}" * 500_000 + "}",
        "\\text{" * 200_000,
        "\\boxed{" + "1," * 500_000 + "}",
        "0" * 1_000_000 + "x",
        "^" + " " * 1_000_000,
    ],
)
def test_linear_time(text: str) -> None:
    begin = time.process_time()
    last_box(text)
    normalise(text)
    assert time.process_time() - begin < 1.5


def test_a_million_unclosed_braces_take_less_than_a_second() -> None:
    begin = time.process_time()
    assert grade_state(THINK + "\\boxed{" + "{" * 1_000_000, "stop") == ("unclosed_box", None)
    assert time.process_time() - begin < 1
