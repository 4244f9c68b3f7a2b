"""Trace choice reads every flag at the trace's own index; mapped columns become rows."""

import re
from typing import Any

import pytest

from data_prep.rows.parse import (
    TRACE_DROPS,
    Dropped,
    clean_gsm8k,
    from_columns,
    from_openr1,
    question_type_allowed,
)
from data_prep.source.shards import BadRecord, Record

GOOD = "<think>\na\n</think>\n\n\\boxed{7}"
BAD = "<think>\na\n</think>\n\n\\boxed{8}"
CUT = "<think>\na"


def record(generations: list[str], verified: list[bool | None] | None, **more: Any) -> Record:
    count = len(generations)
    values = {
        "problem": " p ",
        "answer": "7",
        "source": "s",
        "uuid": "u",
        "generations": generations,
        "is_reasoning_complete": [g != CUT for g in generations],
        "correctness_math_verify": verified,
        "finish_reasons": ["stop"] * count,
    }
    return Record(values | more, "file, row 1")


def choose(*arguments: Any, **more: Any) -> int | str:
    try:
        return from_openr1(record(*arguments, **more), "correctness_math_verify", "first", 0).trace
    except Dropped as reason:
        return str(reason)


def test_the_chosen_trace_passes_all_checks_at_one_index() -> None:
    assert choose([BAD, GOOD], [False, True]) == 1
    assert choose([CUT, GOOD, GOOD], [True, True, True]) == 1
    assert choose([GOOD, GOOD], [None, True]) == 1
    assert choose([GOOD, GOOD], [True, True], finish_reasons=["length", "stop"]) == 1
    assert choose([GOOD], [True], finish_reasons=None) == 0


def test_the_choice_among_right_traces_is_the_recipes() -> None:
    long, short = GOOD.replace("a", "a" * 50), GOOD
    traces = record([long, short, long + " "], [True] * 3)
    picked = {
        c: from_openr1(traces, "correctness_math_verify", c, 1).trace
        for c in ("first", "shortest", "longest")
    }
    assert picked == {"first": 0, "shortest": 1, "longest": 2}
    seeded = {
        from_openr1(traces, "correctness_math_verify", "random", seed).trace for seed in range(20)
    }
    assert seeded == {0, 1, 2}


def test_flags_of_another_trace_do_not_count() -> None:
    """The record promises one right trace; here index 0 is right and index 1 carries the flag."""
    assert choose([GOOD, BAD], [False, True]) == TRACE_DROPS[2]


def test_the_drop_names_the_check_that_the_best_trace_failed() -> None:
    assert choose([CUT], [True]) == TRACE_DROPS[0]
    assert choose([CUT, GOOD], [True, False]) == TRACE_DROPS[1]
    assert choose([GOOD], None) == TRACE_DROPS[1]
    assert choose([BAD], [True]) == TRACE_DROPS[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"generations": "text"}, "column 'generations' must be list, not str"),
        ({"finish_reasons": ["stop"]}, "'finish_reasons' must have one entry for each of 2"),
        ({"answer": True}, "column 'answer' must be str, not bool"),
    ],
)
def test_a_record_of_another_shape_is_an_error_with_its_place(change: dict, words: str) -> None:
    with pytest.raises(BadRecord, match=words) as error:
        good = record([GOOD, GOOD], [True, True])
        from_openr1(Record(good.values | change, good.where), "correctness_math_verify", "first", 0)
    assert "file, row 1" in str(error.value)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (("messages", "id"), 'it has messages, id (set "data.columns={messages: messages}")'),
        (
            ("problem", "answer", "solution", "messages"),
            'set "data.columns={problem: problem, solution: solution, answer: answer}"',
        ),
        (("question",), "it has question (set data.columns)"),
    ],
)
def test_a_missing_column_names_the_ones_to_set(there: tuple[str, ...], words: str) -> None:
    found = Record(dict.fromkeys(there, "x"), "f, row 1")
    with pytest.raises(BadRecord, match=re.escape(words)):
        from_columns(found, {"messages": "chat"}, None)


def test_a_missing_question_type_names_its_key() -> None:
    found = Record({"messages": []}, "f, row 1")
    assert question_type_allowed(found, None)
    with pytest.raises(BadRecord, match=r"set data\.question_types=null to keep all rows"):
        question_type_allowed(found, ["MCQ"])


def test_a_missing_column_lists_the_columns_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"no column 'solution'; it has question \(set data.columns\)"
    ):
        from_columns(
            Record({"question": "q"}, "f, row 1"),
            {"problem": "question", "solution": "solution"},
            None,
        )


def test_gsm8k_columns_become_a_think_block_and_a_box() -> None:
    solution = "48/2 = <<48/2=24>>24 clips.\n48+24 = <<48+24=72>>72 clips.\n#### 72"
    values = {
        "problem": "How many?",
        "solution": solution,
        "answer": "72",
        "id": "gsm8k-0",
        "source": "g",
    }
    columns = {"problem": "problem", "solution": "solution", "answer": "answer", "uuid": "id"}
    row = from_columns(Record(values, "f, row 1"), columns, "gsm8k")
    assert row.solution == (
        "<think>\n48/2 = 24 clips.\n48+24 = 72 clips.\n</think>\n\nThe answer is \\boxed{72}."
    )
    assert (row.uuid, row.answer) == ("gsm8k-0", "72")


def test_messages_become_a_row() -> None:
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": GOOD}]
    row = from_columns(Record({"messages": messages}, "f, row 1"), {"messages": "messages"}, None)
    assert (row.problem, row.solution, row.answer) == ("p", GOOD, "7")
    with pytest.raises(Dropped, match="no user's and assistant's turn at the end"):
        from_columns(Record({"messages": messages[:1]}, "f, row 1"), {"messages": "messages"}, None)
    with pytest.raises(
        ValueError, match="f, row 1: column 'messages' must hold messages with role and content"
    ):
        from_columns(
            Record({"messages": [{"from": "a", "value": "b"}]}, "f, row 1"),
            {"messages": "messages"},
            None,
        )


def test_cleaning_keeps_what_is_not_an_annotation() -> None:
    assert clean_gsm8k("if 3 << 4 then 1<<0+1=1>> x") == "if 3 << 4 then 1 x"
