"""The batches of a generation on disk: planned, submitted and collected.

``batches/N.json`` is written before batch N is submitted and again with the id that the API
returned; a batch without an id may or may not exist. ``batches/N.results.jsonl`` is the API's own
results file. Every write is atomic and fsynced before the next API call, so a killed process leaves
one of these states.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.files import fsync, make_folder, read_json, read_jsonl, write_json, write_text


@dataclass(frozen=True)
class Batch:
    """Requests submitted together."""

    number: int
    requests: tuple[str, ...]
    """Request ids."""
    newest: str | None
    """The account's newest batch before this one was submitted; None when it had none."""
    begun: float
    """Unix time just before it was submitted last."""
    id: str | None = None
    """The API's id; None until it is known."""


class Ledger:
    """The batches in ``folder``; ``token`` distinguishes their requests from all others of the
    account.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token
        make_folder(self.folder)
        paths = sorted(p for p in folder.glob("*.json"))
        self.batches = {b.number: b for b in (Batch(**_tupled(read_json(p))) for p in paths)}

    def intend(self, requests: Sequence[str], newest: str | None) -> Batch:
        """Records a new batch that is about to be submitted."""
        number = max(self.batches, default=0) + 1
        return self._save(Batch(number, tuple(requests), newest, time.time()))

    def renew(self, batch: Batch) -> Batch:
        """Records that a batch is about to be submitted now."""
        return self._save(replace(batch, begun=time.time()))

    def name(self, batch: Batch, id: str) -> Batch:
        """Records the id of a submitted batch."""
        return self._save(replace(batch, id=id))

    def forget(self, batch: Batch) -> None:
        """Deletes the record of a batch that was not submitted."""
        assert batch.id is None
        self._path(batch).unlink()
        del self.batches[batch.number]

    def collect(self, batch: Batch, text: str) -> None:
        """Writes a batch's results file. Raises ValueError when it does not have exactly one result
        per request.
        """
        found = [json.loads(line)["custom_id"] for line in text.split("\n") if line.strip()]
        if sorted(found) != sorted(self.custom_id(batch, r) for r in batch.requests):
            raise ValueError(
                f"batch {batch.id} has {len(found):,} results for {len(batch.requests):,} requests"
            )
        write_text(self._results(batch), text)
        fsync(self.folder)

    def custom_id(self, batch: Batch, request: str) -> str:
        """Returns a request's id in a batch: at most 64 letters, digits and dashes, unique in the
        account.
        """
        return f"{self.token}-{batch.number}-{request}"

    def owns(self, batch: Batch, custom_id: str) -> bool:
        """Returns whether a result with this ``custom_id`` belongs to the batch."""
        return custom_id.startswith(f"{self.token}-{batch.number}-")

    @property
    def unnamed(self) -> Batch | None:
        """The batch that may or may not have been submitted, or None; at most the last one."""
        unnamed = [b for b in self.batches.values() if b.id is None]
        assert len(unnamed) <= 1
        return unnamed[0] if unnamed else None

    @property
    def open(self) -> list[Batch]:
        """Submitted batches whose results have not been collected yet."""
        return [
            b for b in self.batches.values() if b.id is not None and not self._results(b).exists()
        ]

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (request id, result) of all collected batches, oldest first."""
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
