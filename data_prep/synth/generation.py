"""Generation: seeds -> prompts -> replies of a model -> records.jsonl, in a folder that outlives
the dataset's build.

The folder starts with generation.json and is complete when it has a manifest.json. In between it
holds the backend's files, so that the same command resumes and nothing is generated, or paid for,
twice.
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
from common.differences import differences
from common.errors import StageFailed, UserError
from common.files import (
    MANIFEST,
    file_errors,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
    write_lock,
)
from common.records import Problem
from data_prep.synth import prompts
from data_prep.synth.prompts import Request, Seed

RECORDS = "records.jsonl"
COLUMNS = {"problem": "problem", "solution": "solution", "answer": "answer", "uuid": "id"}
"""``data.columns`` for RECORDS: Row field -> key of a record."""


@dataclass(frozen=True)
class Reply:
    """The outcome of one request."""

    state: str
    """``answered``; or why there is no text: ``refused``, ``errored``, ``expired``, ``canceled``.
    """
    text: str = ""
    cut: bool = False
    """Whether the token budget cut it off."""


@dataclass(frozen=True)
class Replies:
    """The replies to all requests, by request id."""

    by_id: dict[str, Reply]
    account: dict[str, Any]
    """The manifest's record of the calls: batches, results, tokens, cost."""


class Backend(Protocol):
    """A model that answers requests."""

    name: str
    """``anthropic`` or ``local``."""

    def replies(self, requests: Sequence[Request], folder: Path, token: str) -> Replies:
        """Returns the reply to every request. Keeps in ``folder`` what it needs to resume after a
        kill.

        ``token`` is random and fixed per folder, and identifies the folder's requests.
        """
        ...


@dataclass(frozen=True)
class Generation:
    """The settings that determine the generated problems, and the folder of their files."""

    folder: Path
    seeds: Path
    """JSONL file of {id, problem, solution, answer}."""
    seed_rows: int
    """Number of seeds used."""
    examples: int
    """Seeds per prompt."""
    problems: int
    """Problems to request in all."""
    per_request: int
    """Problems requested per prompt."""
    backend: str
    model: str
    temperature: float
    max_tokens: int
    """Token budget of one reply."""
    seed: int

    @cached_property
    def chosen(self) -> list[Seed]:
        """The seeds used as examples."""
        return prompts.choose(self.seeds, self.seed_rows, self.seed)

    @property
    def seed_problems(self) -> list[Problem]:
        """The seeds as problems that must not be in the dataset."""
        return prompts.problems(self.chosen)

    def identity(self) -> dict[str, Any]:
        """Returns the settings as generation.json and a dataset's manifest record them."""
        values = asdict(self) | {"seeds": sha256_json([asdict(s) for s in self.chosen])}
        del values["folder"]
        return values | {"instruction": sha256_json(prompts.INSTRUCTION)}

    def complete(self, backend: Backend) -> Path:
        """Makes ``backend`` answer the remaining requests. Returns the path of the finished
        RECORDS.

        Raises UserError when the folder holds a generation with other settings, StageFailed when
        nothing was answered.
        """
        assert backend.name == self.backend
        if not self.is_complete:
            with write_lock(self.folder / "lock"), file_errors(self.folder):
                self._complete(backend)
        _check(read_json(self.folder / MANIFEST)["settings"], self.identity(), self.folder)
        return self.folder / RECORDS

    @property
    def is_complete(self) -> bool:
        """Whether the generation has finished (its manifest exists)."""
        return (self.folder / MANIFEST).exists()

    def _complete(self, backend: Backend) -> None:
        begun = self.folder / "generation.json"
        if not begun.exists():
            write_json(begun, {"token": secrets.token_hex(6), "settings": self.identity()})
        saved = read_json(begun)
        _check(saved["settings"], self.identity(), self.folder)
        requests = prompts.requests(
            self.chosen, self.problems, self.per_request, self.examples, self.seed
        )
        replies = backend.replies(requests, self.folder, saved["token"])
        assert replies.by_id.keys() == {request.id for request in requests}
        states = Counter(reply.state for reply in replies.by_id.values())
        if not states["answered"]:
            raise StageFailed(
                f"{self.folder}: no request was answered ({dict(states)}): see the backend's files "
                "in that folder"
            )
        answered = [
            (r.id, replies.by_id[r.id]) for r in requests if replies.by_id[r.id].state == "answered"
        ]
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
    # Round trip, so that it compares equal to what is read from a file.
    if changed := differences(old, json.loads(json.dumps(new))):
        shown = "\n  ".join(changed.values())
        raise UserError(
            f"{folder} was generated with other settings:\n  {shown}\nuse another name "
            "(data.name=NAME), or delete that folder and the problems that were paid for"
        )
