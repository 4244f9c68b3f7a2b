"""A local model as a backend: prompts as a benchmark set, answered by the evaluator's generator, read back here.

The generator belongs to a later stage, so the command hands it in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.files import read_jsonl
from common.records import Problem
from data_prep.answers.boxed import visible
from data_prep.benchmarks import sets
from data_prep.synth.generation import Replies, Reply
from data_prep.synth.prompts import Request

SET = "synth"
PROMPTS = "prompts.jsonl"
ROLLOUTS = "rollouts.jsonl"

Generate = Callable[[Sequence[Problem], Path], None]
"""Completes ROLLOUTS in the folder with one rollout of each problem, whose text is the prompt."""


class Local:
    """Asks a model through ``generate``."""

    name = "local"

    def __init__(self, generate: Generate) -> None:
        self.generate = generate

    def replies(self, requests: Sequence[Request], folder: Path, token: str) -> Replies:
        """The reply to every request; what is in the folder's ROLLOUTS already is not generated again."""
        prompts = [Problem(request.id, request.prompt, "", SET) for request in requests]
        sets.write_problems(folder / PROMPTS, prompts)
        self.generate(prompts, folder)
        found: dict[str, Reply] = {}
        tokens = 0
        for rollout in read_jsonl(folder / ROLLOUTS):
            # What the model thought before it answered is not part of the reply.
            found[rollout["key"][1]] = Reply(
                "answered", visible(rollout["text"]) or "", rollout["finish_reason"] == "length"
            )
            tokens += rollout["tokens"]
        return Replies(found, {"output_tokens": tokens})
