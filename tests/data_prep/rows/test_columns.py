"""Numbers that stand for text, answers in boxes, and solutions that end with another answer."""

import math
from typing import Any

import pytest

from common.records import Row, row_id
from data_prep.rows.columns import answer_of, text_of, unboxed
from data_prep.rows.dropped import Dropped
from data_prep.rows.own_answer import contradicts
from data_prep.rows.parse import OTHER_ANSWER, from_columns, from_openr1
from data_prep.source.shards import BadRecord, Record

COLUMNS = {"problem": "p", "solution": "s", "answer": "gold", "uuid": "key"}


def own(style: str = "boxed", clean: str | None = None, **values: Any) -> Row:
    record = {"p": "How many?", "s": "Count them.", "gold": "6", "key": "k"} | values
    return from_columns(Record(record, "f, row 1"), COLUMNS, clean, style)


def openr1(**values: Any) -> Row:
    record = {
        "problem": "p",
        "generations": ["<think>\na\n</think>\n\n\\boxed{7}"],
        "answer": "7",
        "is_reasoning_complete": [True],
        "checked": [True],
        "uuid": "u",
    }
    return from_openr1(Record(record | values, "f, row 1"), "checked", "first", 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (14, "14"), (-3, "-3"), (14.0, "14"), (2.5, "2.5"), (1e-7, "0.0000001"),
     (10**30, "1" + "0" * 30), (None, None), (math.nan, None)],
)  # fmt: skip
def test_a_number_is_read_as_text(value: Any, text: str | None) -> None:
    assert text_of(Record({"c": value}, "f, row 1"), "c") == text


@pytest.mark.parametrize("value", [True, False, [1], {"a": 1}, math.inf])
def test_other_kinds_are_named_with_their_place(value: Any) -> None:
    for column in ("gold", "key"):
        with pytest.raises(BadRecord, match=rf"^f, row 1: column '{column}' must be "):
            own(**{column: value})
    with pytest.raises(BadRecord, match=r"^f, row 1: column 'answer' must be "):
        openr1(answer=value)
    with pytest.raises(BadRecord, match=r"^f, row 1: column 'uuid' must be "):
        openr1(uuid=value)


def test_ids_and_answers_that_are_numbers_make_the_same_row_as_text() -> None:
    assert own(key=12, gold=6) == own(key="12", gold="6") == own(key=12.0, gold=6.0)
    assert openr1(uuid=12, answer=7) == openr1(uuid="12")
    assert own(key=12).id == row_id("unknown", "12", 0)
    assert own(key=None) == own(key="")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}", "7"),
        (r"$\boxed{7}$", "$7$"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{3}, \boxed{5}", "3, 5"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"x = \boxed {7}", "x = 7"),
        (r"\boxed{7", "7"),
        (r"\boxed{}", ""),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
    ],
)
def test_the_box_of_an_answer_is_taken_off(text: str, answer: str) -> None:
    assert unboxed(text) == answer_of(Record({"a": text}, "f"), "a") == answer


def test_an_answer_in_a_box_or_in_dollars_is_the_same_answer() -> None:
    for answer in (r"\boxed{7}", r"$\boxed{7}$", "$7$", r"\boxed{\text{7}}"):
        assert openr1(answer=answer).trace == 0
    for answer in (r"\boxed{6}", "$6$", r"$\boxed{6}$"):
        assert own(gold=answer).solution.endswith(r"The answer is \boxed{6}.")


THOUGHT = "<think>\nIt may be \\boxed{5}.\n</think>\n\n"
AGREES = [
    "Count them.",
    r"First \boxed{5}, no: \boxed{6}.",
    THOUGHT + r"It is \boxed{6.0}.",
    "3 + 3 = 6\n#### 6",
    "The answer is $6.00.",
    "The answer is 5 more than 1.",
    "The answer is 5. No, that was wrong.",
    r"It is \boxed{7",
]
CONTRADICTS = [
    r"So it is \boxed{7}.",
    r"\boxed{6} was wrong; it is \boxed{7}.",
    THOUGHT + r"It is \boxed{5}.",
    "3 + 4 = 7\n#### 7",
    "So the answer is 7.",
    "**Answer: -$6**",
    r"\boxed{\text{six}}",
]


@pytest.mark.parametrize("style", ["boxed", "answer_is"])
def test_a_solution_that_ends_with_another_answer_is_dropped(style: str) -> None:
    for solution in AGREES:
        assert own(style, s=solution).answer == "6"
    for solution in CONTRADICTS:
        with pytest.raises(Dropped, match=OTHER_ANSWER) as dropped:
            own(style, s=solution, clean="gsm8k")
        assert dropped.value.shown == f"answer 6: {solution}"


def test_a_conversation_whose_column_has_another_answer_is_dropped() -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": r"\boxed{4}"}]
    columns = {"messages": "m", "answer": "gold"}
    for gold in (4, "4", r"\boxed{4}"):
        assert from_columns(Record({"m": turns, "gold": gold}, "f"), columns, None).problem == "p"
    with pytest.raises(Dropped, match=OTHER_ANSWER):
        from_columns(Record({"m": turns, "gold": 5}, "f"), columns, None)


def test_words_without_a_box_contradict_nothing() -> None:
    assert not contradicts("So the answer is 7.", "seven or more")
    assert not contradicts("<think>\nnever closed \\boxed{7}", "6")
