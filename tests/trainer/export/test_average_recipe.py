"""The recipe of an average: what is read, what is refused, and its names."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from trainer.export.average_recipe import LONGEST, AverageRecipe, label_of
from trainer.run.model_label import ModelLabel

THERE = [704, 1056, 1408]


def test_weights_are_normalised_and_steps_sorted() -> None:
    recipe = AverageRecipe.parse("1408:4, 704:1,1056:2", "base=0.25", THERE)
    assert recipe.weights == tuple(
        (step, Fraction(n, 7)) for step, n in ((704, 1), (1056, 2), (1408, 4))
    )
    assert recipe.base == Fraction(1, 4)
    same = AverageRecipe.parse("704:0.5,1056:1.0,1408:2", "base=.25", THERE)
    assert same == recipe and same.name == recipe.name
    assert AverageRecipe.parse("704:3,1056:3", None, THERE) == AverageRecipe.parse(
        "1056,704", None, THERE
    )


@pytest.mark.parametrize(
    ("members", "toward", "name"),
    [
        ("704,1056,1408", None, "avg-704-1056-1408"),
        ("704,1056,1408", "base=0.3", "avg-704-1056-1408-base30"),
        ("1408", "base=0.125", "avg-1408-base12p5"),
        ("704:1,1056:2", None, "avg-704-1056-w"),
    ],
)
def test_the_default_name_tells_the_recipe(members: str, toward: str | None, name: str) -> None:
    word = label_of(AverageRecipe.parse(members, toward, THERE), None).word
    assert word.startswith(name) and len(word) == len(name) + 8 * name.endswith("-w")


def test_a_long_recipe_has_a_short_name() -> None:
    steps = list(range(1000, 1040))
    recipe = AverageRecipe.parse(",".join(map(str, steps)), None, steps)
    other = AverageRecipe.parse(",".join(map(str, steps[:-1])), None, steps)
    assert recipe.name.startswith("40-steps-") and len(recipe.name) < LONGEST
    assert recipe.name[-8:] != other.name[-8:]


@pytest.mark.parametrize(
    ("members", "toward", "message"),
    [
        ("704,1057", None, "no checkpoint and no export of step 1057"),
        ("704,704", None, "step 704 is given twice"),
        ("704:1,1056:0", None, "a weight must be greater than 0"),
        ("704:1,1056:-2", None, "a weight must be greater than 0"),
        ("704:1,1056", None, "give every step a weight, or none"),
        ("704", None, "an average needs two steps"),
        ("", None, "give steps as in 704,1056"),
        ("704,,1056", None, "give steps as in 704,1056"),
        ("704;1056", None, "give steps as in 704,1056"),
        ("704:x,1056:1", None, "give steps as in 704,1056"),
        ("704:1e3,1056:1", None, "give steps as in 704,1056"),
        ("704:nan,1056:1", None, "give steps as in 704,1056"),
        ("rl-20,704", None, "give steps as in 704,1056"),
    ],
)
def test_wrong_members_are_refused_with_what_is_there(
    members: str, toward: str | None, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        AverageRecipe.parse(members, toward, THERE)
    assert message in str(raised.value) and "(available: 704, 1056, 1408)" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "toward", ["base=0", "base=1", "base=1.5", "base=-0.3", "base=x", "0.3", "704=0.3", "base=", ""]
)
def test_a_wrong_share_is_refused(toward: str) -> None:
    with pytest.raises(UserError, match="a number between 0 and 1"):
        AverageRecipe.parse("704,1056", toward, THERE)


@pytest.mark.parametrize(
    "name",
    [
        "704",
        "base",
        "rl-20",
        "rl",
        "step-7",
        "Mine",
        "a_b",
        "a--b",
        "-a",
        "a-",
        "",
        "x" * 61,
        "a/b",
    ],
)
def test_a_wrong_name_is_refused(name: str) -> None:
    recipe = AverageRecipe.parse("704,1056", None, THERE)
    with pytest.raises(UserError, match="lower-case letters, digits and single hyphens"):
        label_of(recipe, name)


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True))
def test_every_name_that_is_taken_is_a_label(name: str) -> None:
    recipe = AverageRecipe.parse("704,1056", None, THERE)
    try:
        label = label_of(recipe, name)
    except UserError:
        return
    assert label == ModelLabel.parse(label.word) == ModelLabel.parse(str(label))
    assert label.word in (f"avg-{name}", name)
