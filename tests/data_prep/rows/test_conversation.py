"""Conversations of several turns, with reasoning of its own, and marked for training."""

import json
from typing import Any

import pytest

from common.records import Row
from data_prep.rows.conversation import NO_ANSWER, OTHER_ROLE, conversation
from data_prep.rows.dropped import Dropped
from data_prep.rows.parse import from_columns
from data_prep.source.shards import BadRecord, Record
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import BARE, Prompt

ANSWER = "<think>\nTwo and two.\n</think>\n\nIt is \\boxed{4}."


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def row(*turns: dict[str, Any]) -> Row:
    return from_columns(Record({"m": list(turns)}, "f, row 1"), {"messages": "m"}, None)


def test_the_loss_is_on_the_last_answer_and_all_before_is_prompt(qwen3: Any) -> None:
    made = row(
        turn("system", "Be brief."),
        turn("user", "What is 1 + 1?"),
        turn("assistant", "2"),
        turn("user", "And 2 + 2?"),
        turn("assistant", ANSWER),
    )
    assert (made.problem, made.solution, made.answer) == ("And 2 + 2?", ANSWER, "4")
    (encoded,) = chat.encode(qwen3, [made], BARE)
    assert qwen3.decode(encoded.input_ids[encoded.prompt_len :]) == f"{ANSWER}<|im_end|>"
    assert qwen3.decode(encoded.input_ids[: encoded.prompt_len]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\nAnd 2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    # Its own system turn stands, not the recipe's.
    assert chat.encode_prompt(qwen3, made, Prompt(system="Other.")) == chat.encode_prompt(
        qwen3, made, BARE
    )


def test_equal_questions_after_different_turns_have_different_ids() -> None:
    same = [turn("user", "And 2 + 2?"), turn("assistant", ANSWER)]
    assert row(turn("system", "a"), *same).id != row(turn("system", "b"), *same).id != row(*same).id


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_under_a_key_of_its_own_is_the_think_block(key: str) -> None:
    made = row(
        turn("user", "2 + 2?", **{key: None}),
        turn("assistant", "It is \\boxed{4}.", **{key: "Two and two."}),
    )
    assert made.solution == ANSWER


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "2 "}, {"type": "text", "text": "+ 2?"}]
    assert row(turn("user", parts), turn("assistant", ANSWER)).problem == "2 + 2?"


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([turn("user", "a")], NO_ANSWER),
        ([turn("assistant", "a"), turn("user", "b")], NO_ANSWER),
        ([turn("user", "a"), turn("tool", "b"), turn("assistant", "c")], OTHER_ROLE),
        ([], NO_ANSWER),
    ],
)
def test_other_conversations_are_dropped(turns: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(Dropped, match=reason):
        conversation(turns, "f")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (turn("assistant", ANSWER, reasoning_content="again"), "reasoning twice"),
        (turn("assistant", [{"type": "image"}]), "must be text"),
        (turn("assistant", None), "must be text"),
        (turn("assistant", ANSWER, weight=0), "'weight' marks 0 turns"),
        ({"role": "assistant"}, "must hold messages with role and content"),
        (turn("assistant", "Hm.\n</think>\n\n\\boxed{4}"), "has </think> but no <think>"),
    ],
)
def test_a_broken_answer_is_named_with_its_place(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message) as caught:
        row(turn("user", "2 + 2?"), answer)
    assert str(caught.value).startswith("f, row 1: ")


@pytest.mark.parametrize("key", ["weight", "train"])
def test_several_supervised_turns_are_refused(key: str) -> None:
    turns = [
        turn("user", "a"),
        turn("assistant", "b", **{key: 1}),
        turn("user", "c"),
        turn("assistant", ANSWER, **{key: 1}),
    ]
    with pytest.raises(BadRecord, match=f"'{key}' marks 2 turns .* one record per supervised turn"):
        row(*turns)
    del turns[3][key]
    with pytest.raises(BadRecord, match=f"'{key}' marks 1 turns"):
        row(*turns)
    turns[1][key] = 0
    assert json.loads(row(*turns).earlier)[1]["content"] == "b"
