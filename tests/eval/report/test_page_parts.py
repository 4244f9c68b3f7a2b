"""Parts of the HTML report: texts cut to fit, formulas found and converted, tables, axes."""

import base64
import json
import random
import time
import zlib

import pytest

from common.records import Grade, Problem, Rollout
from eval.report.html import maths, texts
from eval.report.html.charts import Axis, count, number
from eval.report.html.markdown import html
from eval.report.html.texts import Sheet, pack
from eval.report.html.words import words
from tests.data_prep.openr1 import thought


def test_texts_are_cut_until_they_fit() -> None:
    text = thought(random.Random(1), 9000)
    rollout = Rollout(("s", "p", 0), 0, f"<think>{text}</think>{text[::-1]}", 9, "stop", "e", 1.0)
    sheets = [
        Sheet(
            Problem("p", "?", "1", "s"),
            [(rollout, Grade(rollout.key, "boxed", "1", True, True)), None],
        )
    ] * 20
    sizes = [sum(map(len, pack(sheets, room))) for room in (10**9, 200_000, 50_000)]
    assert sizes[0] > 200_000 >= sizes[1] > 100_000 > 50_000 >= sizes[2] > 20_000


def test_thinking_and_answer_are_told_apart() -> None:
    assert texts.parts("<think>a</think>\n\nb") == ("a", "b")
    assert texts.parts("a</think>b</think>c") == ("a</think>b", "c")
    assert texts.parts("</think>c") == ("", "c")
    assert texts.parts("no thought") == (None, "no thought")
    assert texts.parts("<think>for ever") == ("for ever", None)


def test_formulas_are_found_and_prices_are_not() -> None:
    def found(text: str) -> list[str]:
        pieces = list(maths.split(text))
        return [p[0] for p in pieces if isinstance(p, tuple)]

    assert found(r"$a$ and \(b\), \[c\\d\], $$e$$ or $f\$g$") == ["a", "b", r"c\\d", "e", r"f\$g"]
    assert found("It costs $5 and $6, \\$7 $ 8 $ but $x$9") == []
    assert found(r"\(\(x\) and $" + "y" * 2000 + "$") == ["x"]
    for text in ("$" * 9999, r"a $x$, \( y\) and $$ z $$ for \[w\] or $5"):
        assert (
            "".join(p if isinstance(p, str) else maths.source(p) for p in maths.split(text)) == text
        )


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (r"It is \boxed{83}.", ["It is ", (r"\boxed{83}", ""), "."]),
        (
            r"\boxed {\frac{1}{2}}x\boxed{2}",
            [(r"\boxed {\frac{1}{2}}", ""), "x", (r"\boxed{2}", "")],
        ),
        (r"\boxed{\boxed{1} 2} {", [(r"\boxed{\boxed{1} 2}", ""), " {"]),
        (r"} {\boxed{1 and \boxed{2}", [r"} {\boxed{1 and ", (r"\boxed{2}", "")]),
        (r"$\boxed{1}$ \boxed{\}}", [(r"\boxed{1}", "$"), " ", (r"\boxed{\}}", "")]),
        (r"within \boxed{}. \boxed{ } \boxed 5", [r"within \boxed{}. \boxed{ } \boxed 5"]),
        ("\\boxed{1\n\n2} \\\\boxed{3}", ["\\boxed{1\n\n2} \\\\boxed{3}"]),
    ],
)
def test_a_bare_box_is_a_formula(text: str, pieces: list[texts.Piece]) -> None:
    assert list(maths.split(text)) == pieces


def test_boxes_that_never_close_or_nest_deep_take_linear_time() -> None:
    for text in (r"\boxed{" * 40_000, r"\boxed{1" * 20_000 + "}" * 20_000, r"\boxed{1}" * 20_000):
        begun = time.process_time()
        pieces = list(maths.split(text))
        assert time.process_time() - begun < 2
        assert "".join(p if isinstance(p, str) else maths.source(p) for p in pieces) == text


@pytest.mark.parametrize(
    ("problem", "label"),
    [
        ("Find $x$ if\n\n  $x^{10} \\le \\frac{\\sqrt{2}+1}{x_1}$.", "Find x if x¹⁰ ≤ (√2+1)/x₁."),
        (r"In $\triangle ABC$, \(\angle B = 60^\circ\).", "In △ ABC, ∠ B = 60°."),
        (r"It costs \$5, $\text{so }\{a\}$ \[\mathbb{R}\]", "It costs $5, so {a} R"),
        ("word " * 60, "word " * 26 + "word…"),
        ("x" * 999, "x" * 139 + "…"),
        (r"\frac{ $ ^ { \unknown", "frac ^ unknown"),
        (" \n", ""),
    ],
)
def test_a_row_is_named_by_the_problems_words(problem: str, label: str) -> None:
    assert words(problem) == label


def test_a_formula_that_kills_the_converter_leaves_the_others() -> None:
    deep = ("{" * 200_000, "$")
    formulas = [(f"x^{{{i}}}", "$") for i in range(100)]
    converted = maths.convert([*formulas[:50], deep, *formulas[50:], (r"\nonsense", "$")])
    assert converted.keys() == set(formulas)
    assert converted[formulas[7]] == ["math", ["msup", ["mi", "x"], ["mn", "7"]]]


MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML">%s</math>'


@pytest.mark.parametrize(
    "inner",
    [
        "<script>1</script>",
        '<a href="javascript:1">x</a>',
        "<maction><mi>x</mi></maction>",
        "<mi>x</mi",
        "&bomb;",
        '<annotation-xml encoding="text/html"><img src="x"/></annotation-xml>',
        "<!-- -->",
        "<mrow>" * 99 + "</mrow>" * 99,
        '<svg xmlns="http://www.w3.org/2000/svg"/>',
        '<img xmlns="http://www.w3.org/1999/xhtml"/>',
    ],
)
def test_what_the_converter_emits_is_not_trusted(inner: str) -> None:
    assert maths.check(MATH % inner) is None


def test_attributes_that_are_not_known_are_dropped() -> None:
    inner = (
        '<mi href="javascript:1" onclick="x" mathvariant="bold" class="panel" id="close" '
        'style="position:fixed;color:red;background:url(x);padding:url(x);padding-left:1em">x</mi>'
    )
    assert maths.check(MATH % inner) == [
        "math",
        ["mi", {"mathvariant": "bold", "style": "padding-left:1em"}, "x"],
    ]
    assert maths.check(MATH % "<mtext>a<b>b</b></mtext>") == ["math", ["mtext", "ab"]]


def test_nothing_in_a_formula_moves_or_hides_what_is_beside_it() -> None:
    space = '<mspace %s="%s"/>'
    for value in ("99999em", "-60em", "1e5em", "10.5em", "1 -1em"):
        assert maths.check(MATH % space % ("width", value)) == ["math", ["mspace"]]
    assert maths.check(MATH % space % ("width", ".5em")) == ["math", ["mspace", {"width": ".5em"}]]
    for style in ("color:#FFFFFF", "margin-left:-60em", "margin-left:2em", "padding-left:99em"):
        assert maths.check(MATH % space % ("style", style)) == ["math", ["mspace"]]


def test_a_formula_that_is_not_converted_keeps_its_dollars() -> None:
    text = r"$\nonsense{1}$ and $x^2$, \(\nonsense\)"
    rollout = Rollout(("s", "p", 0), 0, f"<think>\n</think>{text}", 9, "stop", "e", 1.0)
    grade = Grade(rollout.key, "boxed", r"\nonsense^2", False, False)
    (packed,) = pack([Sheet(Problem("p", text, "1", "s"), [(rollout, grade)])])
    sheet, formulas = (json.loads(zlib.decompress(base64.b64decode(p))) for p in packed.split("."))
    assert sheet["problem"] == [r"$\nonsense{1}$", " and ", 0, r", ", r"\(\nonsense\)"]
    assert sheet["rollouts"][0]["extracted"] == [r"\nonsense^2"]
    assert sheet["sources"] == ["$x^2$"] and formulas == [
        ["math", ["msup", ["mi", "x"], ["mn", "2"]]]
    ]


def test_markdown_becomes_tables_without_styles_or_foreign_html() -> None:
    out = html(
        "a <b>x</b> [y](javascript:alert(1))\n\n| n | m |\n|---|---:|\n| <i> | `1` |\n\n- *z*\n"
    )
    assert (
        "<b>" not in out
        and "<i>" not in out
        and "style=" not in out
        and 'href="javascript' not in out
    )
    assert out.count('<div class="scroll"') == 1 and out.index("</table></div>") < out.index("<ul>")
    assert '<td class="end"><code>1</code></td>' in out and "<li><em>z</em></li>" in out


def test_ticks_are_round() -> None:
    def ticks(low: float, high: float, log: bool = False) -> list[float]:
        return pytest.approx(Axis("", low, high, number, count, log).ticks())

    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0, 32768) == [0, 10000, 20000, 30000]
    assert ticks(0.02, 3, log=True) == [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
    assert ticks(5, 5) == [5]
