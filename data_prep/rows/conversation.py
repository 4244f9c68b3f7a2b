"""Reads a conversation: the earlier turns, the problem, and the supervised answer."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from common.records import THINK_CLOSE, THINK_OPEN
from data_prep.rows.dropped import Dropped, head
from data_prep.source.shards import BadRecord

OTHER_ROLE = "a turn of another role than system, user and assistant"
NO_ANSWER = "no user's and assistant's turn at the end"
CONVERSATION_DROPS = (OTHER_ROLE, NO_ANSWER)
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys under which servers and datasets keep an assistant's thoughts."""
MARKS = ("weight", "train")
"""Keys by which datasets mark the turns to train on."""


def conversation(messages: Sequence[Any], where: str) -> tuple[str, str, str]:
    """Returns (earlier turns as ``Row.earlier``, the last user's text, the last answer).

    The last assistant's turn is trained, with its reasoning as a think block; everything before it
    is prompt. Raises Dropped when the conversation has another role, or does not end with a user's
    and an assistant's turn, and BadRecord for malformed messages and several supervised turns.
    """
    turns = [_turn(message, where) for message in messages]
    for role, text in turns:
        if role not in ("system", "user", "assistant"):
            raise Dropped(OTHER_ROLE, head(f"{role}: {text}"))
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise Dropped(NO_ANSWER, head(": ".join(turns[-1])) if turns else None)
    _check_marks(messages, where)
    earlier = [
        {"role": role, "content": unicodedata.normalize("NFC", text)} for role, text in turns[:-2]
    ]
    text = json.dumps(earlier, ensure_ascii=False) if earlier else ""
    return text, turns[-2][1], turns[-1][1]


def _turn(message: Any, where: str) -> tuple[str, str]:
    """Returns a message's role and text."""
    if not (isinstance(message, Mapping) and {"role", "content"} <= message.keys()):
        raise BadRecord(f"{where} must hold messages with role and content")
    text = _text(message["content"], where)
    thought = next((message[key] for key in REASONING if message.get(key)), None)
    if thought is None:
        return message["role"], text
    if not isinstance(thought, str):
        raise BadRecord(f"{where}: the reasoning of a message must be text")
    if THINK_OPEN in text or THINK_CLOSE in text:
        raise BadRecord(
            f"{where}: a message has its reasoning twice, under a key of its own and in its "
            "content: remove one"
        )
    return message["role"], f"{THINK_OPEN}\n{thought.strip()}\n{THINK_CLOSE}\n\n{text.strip()}"


def _text(content: Any, where: str) -> str:
    """Returns the text of a message's content, which is text itself or a list of parts of type
    text.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    raise BadRecord(f"{where}: the content of a message must be text")


def _check_marks(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raises BadRecord when the marks ask for loss elsewhere than on the last turn."""
    for key in MARKS:
        earlier = sum(bool(message.get(key)) for message in messages[:-1])
        last = messages[-1].get(key)
        if earlier or (last is not None and not last):
            raise BadRecord(
                f"{where}: {key!r} marks {earlier + bool(last)} turns for training, but only the "
                "last answer is trained: split the conversation into one record per supervised turn"
            )
