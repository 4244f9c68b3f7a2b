"""Texts that break graders, and texts where graders go wrong."""

HOSTILE = {
    "tower": r"\boxed{10^{10^{10}}}",
    "power": r"\boxed{9^{9^{9^{9}}}}",
    "factorial": r"\boxed{9999999!}",
    "plain power": "The answer is 7**9**9**9",
    "nested": r"\boxed{" + "{" * 1000 + "1" + "}" * 1000 + "}",
    "roots": r"\boxed{" + r"\sqrt{" * 700 + "7" + "}" * 701,
    "fractions": r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 301,
    "open": r"\boxed{1" + "{" * 2_000_000,
    "boxes": r"\boxed{" * 300_000,
    "open boxes": r"\boxed{{}" * 100_000,
    "dollars": "$" * 100_000,
    "answers": "answer " * 10_000,
    "equations": "$" + "x=" * 50_000 + "$",
    "digits": r"\boxed{" + "9" * 100_000 + "}",
    "zeros": r"\boxed{" + "0" * 999 + "7}",
    "words": r"\boxed{7" + " within" * 140 + "!}",
    "long": "1 + " * 12_500_000 + r"\boxed{7}",
    "control": "\x00\x1b[2J\r\x07\\boxed{7\0}",
    "surrogate": "\ud800 \\boxed{\ud800 7}",
    "reversed": "\u202e\\boxed{7}\u2028\ufeff",
}
RIGHT = {"zeros", "long", "reversed"}
"""The cases of HOSTILE that are right when the gold answer is 7."""
TRICKY = [
    (r"<think>\boxed{16}</think>I am not sure.", "16", False),
    (r"<think>\boxed{16}</think>It is \boxed{17}.", "16", False),
    (r"<think>\boxed{17}", "17", False),
    (r"Not \boxed{15}, but \boxed{16}.", "16", True),
    (r"Not \boxed{16}, but \boxed{15}.", "16", False),
    (r"\boxed{\text{The answer is } 16}", "16", True),
    (r"\boxed{16 \text{ apples}}", "16", True),
    (r"It is \boxed{16} after 3 steps.", "16", True),
    (
        r"Reason step by step, and put your final answer within \boxed{}. It is \boxed{16}.",
        "16",
        True,
    ),
    (
        r"It is \boxed{16}. Reason step by step, and put your final answer within \boxed{}.",
        "16",
        True,
    ),
    (r"\boxed{016}", "16", True),
    (r"\boxed{16}", "016", True),
    (r"\boxed{160}", "16", False),
    (r"\boxed{1{,}625}", "1625", True),
    (r"\boxed{1625}", "1{,}625", True),
    (r"\boxed{-1}", "-1", True),
    (r"\boxed{1}", "-1", False),
    (r"\boxed{-1}", "1", False),
]
"""(text, gold, whether it is right) where graders go wrong."""
