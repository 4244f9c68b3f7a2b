"""Generation: seeds -> prompts -> replies of a model -> records.jsonl, in a folder that outlives the dataset's build.

The folder is begun with generation.json and complete when it has a manifest.json. In between it holds what its
backend keeps there, so that the same command goes on where it was and nothing is asked for, or paid for, twice.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from common import provenance
from common.errors import StageFailed, UserError
from common.files import (
    MANIFEST,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
    writer,
)
from common.records import Problem
from data_prep.synth import prompts
from data_prep.synth.prompts import Request, Seed

RECORDS = "records.jsonl"
COLUMNS = {"problem": "problem", "solution": "solution", "answer": "answer", "uuid": "id"}
"""How a record of RECORDS becomes a row."""


@dataclass(frozen=True)
class Reply:
    """What became of one request."""

    state: str
    """``answered``; or why there is no text: ``refused``, ``errored``, ``expired``, ``canceled``."""
    text: str = ""
    cut: bool = False
    """Whether the token budget ended it."""


@dataclass(frozen=True)
class Replies:
    """Of all requests, by request id."""

    by_id: dict[str, Reply]
    account: dict[str, Any]
    """What the manifest keeps of how they were got: attempts, tokens, cost."""


class Backend(Protocol):
    """A model that answers."""

    name: str
    """``anthropic`` or ``local``."""

    def replies(self, requests: Sequence[Request], folder: Path, token: str) -> Replies:
        """The reply to every request. What it needs to go on after a kill it keeps in ``folder``.

        ``token`` is drawn once for the folder, so that its requests can be told from all others.
        """
        ...


@dataclass(frozen=True)
class Generation:
    """What decides the generated problems; how they lie on disk does not."""

    folder: Path
    seeds: Path
    """A JSONL of {id, problem, solution, answer}."""
    seed_rows: int
    """How many of them are used."""
    examples: int
    """Seeds in one prompt."""
    problems: int
    per_request: int
    """Problems that one prompt asks for."""
    backend: str
    model: str
    temperature: float
    max_tokens: int
    """Of one reply."""
    seed: int

    @cached_property
    def chosen(self) -> list[Seed]:
        """The seeds that are used."""
        return prompts.choose(self.seeds, self.seed_rows, self.seed)

    @property
    def seed_problems(self) -> list[Problem]:
        """The seeds as problems that may not be in the dataset."""
        return prompts.problems(self.chosen)

    def identity(self) -> dict[str, Any]:
        """As generation.json and a dataset's manifest keep it."""
        values = asdict(self) | {"seeds": sha256_json([asdict(s) for s in self.chosen])}
        del values["folder"]
        return values | {"instruction": sha256_json(prompts.INSTRUCTION)}

    def complete(self, backend: Backend) -> Path:
        """Has ``backend`` answer whatever is not answered yet; returns the finished RECORDS.

        Raises UserError when the folder holds a generation of other settings, StageFailed when nothing was answered.
        """
        assert backend.name == self.backend
        if not self.is_complete:
            with writer(self.folder / "lock"):
                self._complete(backend)
        _check(read_json(self.folder / MANIFEST)["settings"], self.identity(), self.folder)
        return self.folder / RECORDS

    @property
    def is_complete(self) -> bool:
        """Whether all that could be answered is there."""
        return (self.folder / MANIFEST).exists()

    def _complete(self, backend: Backend) -> None:
        begun = self.folder / "generation.json"
        if not begun.exists():
            write_json(begun, {"token": secrets.token_hex(6), "settings": self.identity()})
        saved = read_json(begun)
        _check(saved["settings"], self.identity(), self.folder)
        requests = prompts.requests(self.chosen, self.problems, self.per_request, self.examples, self.seed)
        replies = backend.replies(requests, self.folder, saved["token"])
        assert replies.by_id.keys() == {request.id for request in requests}
        states = Counter(reply.state for reply in replies.by_id.values())
        if not states["answered"]:
            raise StageFailed(
                f"{self.folder}: no request was answered ({dict(states)}): see what the backend left there"
            )
        answered = [(r.id, replies.by_id[r.id]) for r in requests if replies.by_id[r.id].state == "answered"]
        records = [
            {"id": f"{name}-{k}", "source": f"synthetic/{self.model}", **asdict(item)}
            for name, reply in answered
            for k, item in enumerate(prompts.items(reply.text))
        ]
        write_jsonl(self.folder / RECORDS, records)
        write_json(
            self.folder / MANIFEST,
            {
                "settings": self.identity(),
                "requests": len(requests),
                "replies": dict(sorted(states.items())),
                "cut": sum(reply.cut for _, reply in answered),
                "records": len(records),
                "account": replies.account,
                "files": {RECORDS: sha256_file(self.folder / RECORDS)},
                "versions": provenance.versions(),
            },
        )


def _check(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    changed = sorted(key for key in {*old, *new} if old.get(key) != json.loads(json.dumps(new)).get(key))
    if changed:
        shown = "\n  ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed)
        raise UserError(
            f"{folder} was generated with other settings:\n  {shown}\n"
            "name another dataset with data.name=NAME, or delete that folder and what was paid for it"
        )
