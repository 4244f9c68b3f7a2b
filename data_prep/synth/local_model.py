"""A local model as a backend: writes the prompts as a benchmark set, has the evaluator generate,
reads the rollouts.

The generator belongs to a later stage, so the caller passes it in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.files import read_jsonl
from common.records import ROLLOUTS, Problem
from data_prep.answers.boxed import visible
from data_prep.benchmarks import sets
from data_prep.synth.generation import Replies, Reply
from data_prep.synth.prompts import Request

SET = "synth"
PROMPTS = "prompts.jsonl"

Generate = Callable[[Sequence[Problem], Path], None]
"""Completes ROLLOUTS in the folder with one rollout per problem; the problem's text is the prompt.
"""


class Local:
    """The backend that uses a local model, through ``generate``."""

    name = "local"

    def __init__(self, generate: Generate) -> None:
        self.generate = generate

    def replies(self, requests: Sequence[Request], folder: Path, token: str) -> Replies:
        """Returns the reply to every request. Rollouts already in the folder's ROLLOUTS are not
        generated again.
        """
        prompts = [Problem(request.id, request.prompt, "", SET) for request in requests]
        sets.write_problems(folder / PROMPTS, prompts)
        self.generate(prompts, folder)
        found: dict[str, Reply] = {}
        tokens = 0
        for rollout in read_jsonl(folder / ROLLOUTS):
            # The think block is not part of the reply.
            found[rollout["key"][1]] = Reply(
                "answered", visible(rollout["text"]) or "", rollout["finish_reason"] == "length"
            )
            tokens += rollout["tokens"]
        return Replies(found, {"output_tokens": tokens})
