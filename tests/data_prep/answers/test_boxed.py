import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.answers.boxed import (
    BRACES,
    LONGEST,
    grade_state,
    is_exact,
    last_box,
    normalise,
    visible,
)

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
        (THINK + r"\boxed{ 4 }", "stop", "boxed", "4"),
        (THINK + r"\\boxed{4}", "stop", "boxed", "4"),
        (THINK + r"\boxed{4} and \boxed 5 and \boxed", "stop", "boxed", "4"),
        (THINK + r"\boxed{a \boxed 5 b}", "stop", "boxed", r"a \boxed 5 b"),
        # An empty box is the prompt's, echoed.
        (THINK + r"Put your final answer within \boxed{}. It is \boxed{4}.", "stop", "boxed", "4"),
        (THINK + r"It is \boxed{4}. Put your final answer within \boxed{}.", "stop", "boxed", "4"),
        (THINK + r"Put your final answer within \boxed{ }.", "stop", "no_box", None),
        (THINK + r"Put your final answer within \boxed{}.", "length", "truncated", None),
        (THINK + r"Within \boxed{}: \boxed{4", "stop", "unclosed_box", None),
        (THINK + r"\boxed{4 within \boxed{}", "stop", "unclosed_box", None),
        (r"<think>within \boxed{}</think>four", "stop", "no_box", None),
        (THINK + r"\boxed{1} \boxed{2 {3} \boxed{4 {5}", "stop", "boxed", "1"),
        (THINK + r"\boxed{1 \boxed{2 {3} } } \boxed{4", "stop", "boxed", r"2 {3}"),
        (THINK + r"\boxed{1 \} \boxed{2 \}", "stop", "unclosed_box", None),
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


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from([r"\boxed{", r"\boxed", "{", "}", "\\", " ", "7"]), max_size=14).map(
        "".join
    )
)
def test_last_box_is_what_a_scan_from_every_box_finds(text: str) -> None:
    unclosed = False
    for box in reversed(list(re.finditer(r"\\boxed\s*\{", text))):
        depth = 1
        for token in re.finditer(r"\\.|[{}]", text[box.end() :], re.DOTALL):
            depth += {"{": 1, "}": -1}.get(token[0], 0)
            if depth == 0:
                break
        unclosed = unclosed or depth > 0
        if depth == 0 and (content := text[box.end() :][: token.start()].strip()):
            assert last_box(text) == (content, unclosed)
            return
    assert last_box(text) == (None, unclosed)


def bombs(size: int) -> dict[str, tuple[str, str]]:
    """Visible texts of about ``size`` characters, and the state they end in."""
    return {
        "braces": (r"\boxed{7}\boxed{" + "{" * size, "boxed"),
        "pairs": (r"\boxed{" + "{}" * (size // 2), "unclosed_box"),
        "closing": (r"\boxed{7}" + "}" * size, "boxed"),
        "boxes": (r"\boxed{7}" + r"\boxed{" * (size // 7), "boxed"),
        "open boxes": (r"\boxed{{}" * (size // 9), "unclosed_box"),
        "nested boxes": (r"\boxed{" * (size // 8) + "7" + "}" * (size // 8), "boxed"),
        "echoes": (r"\boxed{7}" + r"\boxed{}" * (size // 8), "boxed"),
        "no braces": (r"\boxed{" + r"\boxed 5 " * (size // 9) + "}", "boxed"),
        "spaces": (r"\boxed" + " " * size, "no_box"),
        "blank": (r"\boxed{" + " " * size + "}", "no_box"),
        "escapes": (r"\boxed{" + r"\}" * (size // 2), "unclosed_box"),
        "backslashes": (r"\boxed{" + "\\" * size, "unclosed_box"),
        "thinks": ("<think></think>" * (size // 15) + r"\boxed{7}", "boxed"),
        "long": ("x" * size + r"\boxed{7}" + "x" * size, "boxed"),
        "huge": (r"\boxed{" + "1," * (size // 2) + "}", "boxed"),
    }


@pytest.mark.parametrize("name", bombs(0))
def test_bombs_are_scanned_once(name: str) -> None:
    text, state = bombs(1_000_000)[name]
    assert (
        grade_state(text, "stop")[0] == state
    )  # scanned once for each box or brace, it takes hours


def test_a_box_before_a_million_braces_is_given_up() -> None:
    assert last_box(r"\boxed{7}\boxed{" + "{}" * BRACES) == (None, True)


def test_long_answers() -> None:
    for part in (r"\text{", "{", "^ ", "0", "1,", "1 ", "$", r"\frac", "a ", "a_{1}+", "1 abcd"):
        answer = part * (LONGEST // len(part))
        assert normalise(answer) == normalise(answer + " ")
    for part in (" within", " obtain", " 16 in", " cm^2", "/cm", " abcd/in"):
        assert normalise("16" + part * (LONGEST // len(part) - 1) + "!").startswith("16")
    long = "0" * LONGEST + "7"
    assert is_exact(long + " ", long) and not is_exact(long, "7")
