import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.answers.boxed import BRACES, grade_state, last_box, visible

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
