"""The label audit: every row's tokens say exactly what its text says, and the loss sits on the answer."""

from __future__ import annotations

from typing import Any

from data_prep import chat
from data_prep.schema import END_OF_TURN, THINK_CLOSE, THINK_OPEN, Row, Tokens


class Auditor:
    """Checks encoded rows against their text, decoding by the vocabulary's bytes rather than the tokenizer.

    ``check`` raises ValueError naming the row and what is wrong.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.pre_tokenizers import ByteLevel
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        assert set(ByteLevel.alphabet()) == set(bytes_to_unicode().values())
        to_byte = {letter: byte for byte, letter in bytes_to_unicode().items()}
        added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self.spelling = {
            i: added[i].encode() if i in added else bytes(to_byte[c] for c in token)
            for token, i in tokenizer.get_vocab().items()
        }
        self.think, self.unthink, self.end = tokenizer.convert_tokens_to_ids([THINK_OPEN, THINK_CLOSE, END_OF_TURN])

    def check(self, row: Row, encoded: Tokens) -> None:
        """Audits one row."""
        ids = encoded.input_ids.tolist()
        labels = ids[encoded.prompt_len :]
        text, prompt = self._spell(ids), self._spell(ids[: encoded.prompt_len])
        faults = {
            "loss does not start at <think>": labels[:1] != [self.think],
            "loss does not end at <|im_end|>": labels[-1:] != [self.end],
            "not one </think> among the labels": labels.count(self.unthink) != 1,
            "an end of turn inside the answer": labels.count(self.end) != 1,
            "tokens do not spell the text": text != chat.render(row.problem, row.solution),
            "prompt is not the evaluation's": prompt != chat.render_prompt(row.problem),
            "no \\boxed in the answer": "\\boxed" not in text[len(prompt) :],
        }
        if found := [fault for fault, there in faults.items() if there]:
            raise ValueError(f"label audit, row {row.id}: {'; '.join(found)}")

    def thought(self, encoded: Tokens) -> int:
        """Tokens between ``<think>`` and ``</think>``."""
        return encoded.input_ids.tolist().index(self.unthink) - encoded.prompt_len - 1

    def _spell(self, ids: list[int]) -> str:
        return b"".join(map(self.spelling.__getitem__, ids)).decode("utf-8", errors="replace")
