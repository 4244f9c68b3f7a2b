"""The prompt of a problem: the turns before the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.records import Problem, Row

PROBLEM = "{problem}"
"""Stands for the problem in a prompt's text."""
Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """The words around a problem. The default asks the bare problem."""

    text: str = PROBLEM
    """The user's turn, with ``{problem}`` once."""
    system: str | None = None
    """The system turn; none if None or empty. A row or problem with its own system turn keeps it.
    """
    prefill: str = ""
    """The beginning of the assistant's turn, which the model continues. Used in evaluations only.
    """

    def messages(self, asked: Row | Problem) -> list[Message]:
        """Returns the messages up to the answer: a system turn if there is one, the earlier turns,
        and the problem as a user's turn.
        """
        before = earlier_turns(asked)
        if self.system and not (before and before[0]["role"] == "system"):
            before = [{"role": "system", "content": self.system}, *before]
        user = self.text.replace(PROBLEM, asked.problem.strip())
        return [*before, {"role": "user", "content": user}]

    def to_json(self) -> dict[str, str]:
        """Returns the added text as settings record it; empty for a bare prompt, so that settings
        from before prompts existed stay equal.
        """
        values = {"prompt": self.text, "system": self.system or "", "prefill": self.prefill}
        bare = {"prompt": PROBLEM, "system": "", "prefill": ""}
        return {key: value for key, value in values.items() if value != bare[key]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Prompt:
        """Returns the prompt that ``to_json`` recorded among ``values``."""
        return Prompt(
            values.get("prompt", PROBLEM), values.get("system") or None, values.get("prefill", "")
        )


BARE = Prompt()


def all_turns(asked: Row | Problem) -> str:
    """Returns the text of the earlier turns and the problem, for comparing problems."""
    return "\n".join([*(turn["content"] for turn in earlier_turns(asked)), asked.problem])


def earlier_turns(asked: Row | Problem) -> list[Message]:
    """Returns the messages before the last user's turn."""
    return json.loads(asked.earlier) if asked.earlier else []
