"""Near-duplicates: rewordings are joined, templates with other formulas are not."""

import time

import pytest

from data_prep.duplicates import minhash
from data_prep.duplicates.formulas import few_valued, formulas


def joined(one: str, other: str, answer: str) -> bool:
    rows = [
        minhash.fingerprint(name, problem, answer, name, (1, len(problem), name))
        for name, problem in (("a", one), ("b", other))
    ]
    return len(set(minhash.clusters(rows).values())) == 1


TEMPLATE = "Decide whether the curve given by the following equation passes through the origin: "
STORY = (
    "A shop at the pier sells {} crates of lemons in the morning and {} crates in the afternoon; "
    "the owner then counts all of the crates that were sold on this day by the shop, writes their "
    "number on a slip of paper, and hands it to the clerk, who files it behind the slips of the "
    "other days of that week before she locks the office and walks home. Is it odd?"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$x = -7$", "$x = 7$"),
        ("$y^2 = x$", "$x^2 = y$"),
        ("$x+1=y$", "$x-1=y$"),
        (r"$y=\sin x$", r"$y=\cos x$"),
        ("$x=3$", r"$x^{2}+y^{2}=9$"),
        ("x^2 = 3", "x^3 = 3"),
        (r"\(x \le 2\)", r"\(x \ge 2\)"),
    ],
)
@pytest.mark.parametrize("answer", [r"\text{Yes}", "No", "B", "0", "12", "even"])
def test_one_template_with_two_formulas_is_two_problems(one: str, other: str, answer: str) -> None:
    assert not joined(TEMPLATE + one, TEMPLATE + other, answer)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$x=-7$", r"\(x = -7\)."),
        (r"$y=\dfrac12$", r"\[ y = \frac{1}{2} \]"),
        ("$a_{1} = 3$", "$a_1=3$"),
        (r"$x\leq 1{,}000$", "$x ≤ 1,000$"),
        (r"$v = 18 \mathrm{~km}$", r"$v = 18$ km"),
        ("$$x = 3$$", "$x=3$"),
    ],
)
def test_spellings_of_one_formula_are_equal(one: str, other: str) -> None:
    assert formulas(one) == formulas(other) != []


@pytest.mark.parametrize("answer", ["No", "B", "31", "123456"])
def test_a_rewording_with_the_same_numbers_is_joined(answer: str) -> None:
    story = STORY.format(14, 17)
    assert joined(story, "Well now, " + story.replace("then counts", "counts"), answer)
    assert joined(story, story.replace("the pier", "a harbour"), answer)


def test_numbers_decide_only_where_the_answer_says_little() -> None:
    one, other = STORY.format(14, 17), STORY.format(15, 16)
    assert not joined(one, other, "No") and not joined(one, other, "31")
    assert joined(one, other, "1234567")
    assert joined("Exercise 5. " + one, "(8 points) " + one, "No")


def test_amounts_of_money_are_no_formula() -> None:
    assert formulas("It costs $5 per hour and $20 more, or $7 a day.") == ["20", "5", "7"]
    assert formulas("$20 more; or $7 each day, for $5 each hour") == ["20", "5", "7"]


def test_which_answers_have_few_values() -> None:
    assert all(map(few_valued, ["yes", "Neither", "a,b", "C", "7", "123", "1/2"]))
    assert not any(map(few_valued, ["1234", "12.5", r"\sqrt{13}", "(2,5)"]))


@pytest.mark.parametrize(
    "part", ["$", r"\text{", r"\(", "1,", "$a", "{", r"\text {x", "a", "=", "-", "abc d", "$abc d"]
)
def test_hostile_texts_take_linear_time(part: str) -> None:
    start = time.process_time()
    formulas(part * 60_000)
    assert time.process_time() - start < 1
