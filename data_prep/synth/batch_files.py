"""The batches of a generation on disk: what was meant to be submitted, what was, and what came back.

``batches/N.json`` is written before batch N is submitted and again with the id that the API gave it; one without an
id is a batch that may or may not exist. ``batches/N.results.jsonl`` is the API's own results file. Every write is
atomic and on the disk before the next call, so that a kill leaves one of these states.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.files import fsync, read_json, read_jsonl, write_json, write_text


@dataclass(frozen=True)
class Batch:
    """Requests that are submitted together."""

    number: int
    requests: tuple[str, ...]
    """Request ids."""
    newest: str | None
    """The account's newest batch before this one was submitted; None when it had none."""
    begun: float
    """Seconds since 1970, when it was about to be submitted."""
    id: str | None = None
    """The API's; None until it is known."""


class Ledger:
    """The batches in ``folder``; ``token`` tells their requests from all others of the account."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = sorted(p for p in folder.glob("*.json"))
        self.batches = {b.number: b for b in (Batch(**_tupled(read_json(p))) for p in paths)}

    def intend(self, requests: Sequence[str], newest: str | None) -> Batch:
        """Notes a batch that is about to be submitted."""
        number = max(self.batches, default=0) + 1
        return self._save(Batch(number, tuple(requests), newest, time.time()))

    def renew(self, batch: Batch) -> Batch:
        """Notes that a batch is about to be submitted at this moment."""
        return self._save(replace(batch, begun=time.time()))

    def name(self, batch: Batch, id: str) -> Batch:
        """Notes the id of a batch that was submitted."""
        return self._save(replace(batch, id=id))

    def forget(self, batch: Batch) -> None:
        """Takes back a batch that was not submitted."""
        assert batch.id is None
        self._path(batch).unlink()
        del self.batches[batch.number]

    def collect(self, batch: Batch, text: str) -> None:
        """Keeps a results file. Raises ValueError when it does not hold a result for every request, and no other."""
        found = [json.loads(line)["custom_id"] for line in text.split("\n") if line.strip()]
        if sorted(found) != sorted(self.custom_id(batch, r) for r in batch.requests):
            raise ValueError(f"batch {batch.id} has {len(found):,} results for {len(batch.requests):,} requests")
        write_text(self._results(batch), text)
        fsync(self.folder)

    def custom_id(self, batch: Batch, request: str) -> str:
        """What a request is called in a batch: at most 64 letters, digits and dashes, used once in the account."""
        return f"{self.token}-{batch.number}-{request}"

    def owns(self, batch: Batch, custom_id: str) -> bool:
        """Whether a result is of this batch."""
        return custom_id.startswith(f"{self.token}-{batch.number}-")

    @property
    def unnamed(self) -> Batch | None:
        """The batch of which it is not known whether it was submitted; at most the last one."""
        unnamed = [b for b in self.batches.values() if b.id is None]
        assert len(unnamed) <= 1
        return unnamed[0] if unnamed else None

    @property
    def open(self) -> list[Batch]:
        """Submitted batches whose results are not here yet."""
        return [b for b in self.batches.values() if b.id is not None and not self._results(b).exists()]

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(request id, result) of all that was collected, oldest first."""
        for batch in self.batches.values():
            if self._results(batch).exists():
                for line in read_jsonl(self._results(batch)):
                    yield line["custom_id"].rpartition("-")[2], line["result"]

    def _save(self, batch: Batch) -> Batch:
        write_json(self._path(batch), asdict(batch))
        fsync(self.folder)
        self.batches[batch.number] = batch
        return batch

    def _path(self, batch: Batch) -> Path:
        return self.folder / f"{batch.number:05d}.json"

    def _results(self, batch: Batch) -> Path:
        return self.folder / f"{batch.number:05d}.results.jsonl"


def _tupled(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"requests": tuple(values["requests"])}
