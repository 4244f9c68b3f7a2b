"""The label audit: checks that a row's tokens decode to exactly its text, and that the loss is on
the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.records import END_OF_TURN, THINK_CLOSE, THINK_OPEN, Row, Tokens
from data_prep.answers.answer_is import stated
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import Prompt

if TYPE_CHECKING:
    import numpy as np


class Auditor:
    """Checks encoded rows against their text. Decodes with the vocabulary's bytes, not with the
    (Rust) tokenizer.
    """

    def __init__(self, tokenizer: Any, answer_style: str, prompt: Prompt) -> None:
        self.answer_style, self.prompt = answer_style, prompt
        byte = _bytes_by_letter()
        added = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
        self.spelling = {
            i: added[i].encode() if i in added else bytes(map(byte.__getitem__, token))
            for token, i in tokenizer.get_vocab().items()
        }
        self.think, self.unthink, self.end = map(
            tokenizer.token_to_id, (THINK_OPEN, THINK_CLOSE, END_OF_TURN)
        )

    def check(self, row: Row, encoded: Tokens) -> None:
        """Audits one row. Raises ValueError naming the row and what is wrong."""
        ids, labels = encoded.input_ids, encoded.input_ids[encoded.prompt_len :]
        text, prompt = self._spell(ids), self._spell(ids[: encoded.prompt_len])
        faults = {
            "loss does not start at <think>": labels[:1].tolist() != [self.think],
            "loss does not end at <|im_end|>": labels[-1:].tolist() != [self.end],
            "not one </think> among the labels": (labels == self.unthink).sum() != 1,
            "an end of turn inside the answer": (labels == self.end).sum() != 1,
            "tokens do not spell the text": text != chat.render(row, self.prompt),
            "prompt is not the evaluation's": prompt != chat.render_prompt(row, self.prompt),
            "no answer in its style": not self._answers(text[len(prompt) :]),
        }
        if found := [fault for fault, there in faults.items() if there]:
            raise ValueError(f"label audit, row {row.id}: {'; '.join(found)}")

    def thought(self, encoded: Tokens) -> int:
        """Returns the number of tokens between ``<think>`` and ``</think>``."""
        return int((encoded.input_ids == self.unthink).argmax()) - encoded.prompt_len - 1

    def _answers(self, text: str) -> bool:
        return stated(text) is not None if self.answer_style == "answer_is" else "\\boxed" in text

    def _spell(self, ids: np.ndarray) -> str:
        return b"".join(map(self.spelling.__getitem__, ids.tolist())).decode(
            "utf-8", errors="replace"
        )


def _bytes_by_letter() -> dict[str, int]:
    """Returns GPT-2's alphabet, letter -> byte: printable Latin-1 bytes are themselves, the others
    U+0100 and up.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printable))
    letters = {chr(byte): byte for byte in printable} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }
    assert letters.keys() == set(ByteLevel.alphabet())
    return letters
