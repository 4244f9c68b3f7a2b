"""Anthropic's Message Batches API as a backend. Each request is paid for only once, also after a
crash.

The API takes no idempotency key. So a batch is recorded before it is submitted (``batch_files``),
and a submission is never repeated blindly: if a batch's id never arrived, because this process or
the connection died, it is searched for among the account's newest batches by the ids of its
requests before anything is submitted again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import StageFailed, UserError, first_line
from common.progress import progress
from data_prep.synth.batch_files import Batch, Ledger
from data_prep.synth.budget import Budget
from data_prep.synth.generation import Replies, Reply
from data_prep.synth.prompts import Request

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types.messages import MessageBatch

KEY = "ANTHROPIC_API_KEY"
ATTEMPTS = 3
"""Maximum number of submissions of a request that gets no answer."""
BATCH_REQUESTS = 5_000
"""Maximum number of requests per batch: about 30 MB, an eighth of the API's limit."""
RETRIES = 8
"""Retries of a failed call, with growing pauses up to MAX_PAUSE. A submission is retried only if it
did not arrive.
"""
MAX_PAUSE = 60.0
"""Longest pause between retries, in seconds."""


class Batches:
    """The backend that uses one of Anthropic's models. ``poll`` is the seconds between two checks
    of a batch; ``settle`` is the seconds within which the API lists a batch whose submission was
    interrupted.
    """

    name = "anthropic"

    def __init__(
        self, model: str, max_tokens: int, budget: Budget, poll: float = 60.0, settle: float = 120.0
    ) -> None:
        self.model, self.max_tokens, self.budget = model, max_tokens, budget
        self.poll, self.settle = poll, settle

    def replies(self, requests: Sequence[Request], folder: Path, token: str) -> Replies:
        """Returns the reply to every request, including those without an answer after ATTEMPTS
        submissions.

        Raises UserError when there is no key, the API rejects a request or the budget is exceeded,
        StageFailed when the API fails or cannot be reached; the same command then resumes.
        """
        from anthropic import APIConnectionError, APIStatusError

        ledger = Ledger(folder / "batches", token)
        by_id = {request.id: request for request in requests}
        try:
            self._answer(ledger, by_id)
        except APIStatusError as e:
            if 400 <= e.status_code < 500 and e.status_code != 429:
                raise UserError(f"the Message Batches API rejected a request: {_said(e)}") from e
            raise StageFailed(
                f"the Message Batches API failed ({_said(e)}): run the same command later"
            ) from e
        except APIConnectionError as e:
            raise StageFailed(
                f"the Message Batches API cannot be reached ({first_line(e)}): run the same "
                "command later"
            ) from e
        return _replies(ledger, self.budget, by_id)

    def _answer(self, ledger: Ledger, by_id: dict[str, Request]) -> None:
        """Submits, waits and collects until every request is answered or was submitted ATTEMPTS
        times.
        """
        client: Anthropic | None = None
        cap = None
        with progress("requests", len(by_id)) as advance:
            done = 0
            while True:
                tried, answered = _progress_of(ledger)
                waiting = {
                    r
                    for batch in (*ledger.open, *filter(None, [ledger.unnamed]))
                    for r in batch.requests
                }
                advance(len(answered) - done)
                done = len(answered)
                missing = [
                    r
                    for r in by_id
                    if r not in answered and r not in waiting and tried[r] < ATTEMPTS
                ]
                # Failed requests are resubmitted together, once no batch is pending.
                due = missing if not waiting else [r for r in missing if not tried[r]]
                if not due and not waiting:
                    return
                client = client or self._client()
                if (doubtful := ledger.unnamed) is not None:
                    if found := self._find(client, ledger, doubtful):
                        ledger.name(doubtful, found)
                    else:
                        ledger.forget(doubtful)
                elif due:
                    spent = _usage(ledger, self.budget)["usd"] + self.budget.estimate(
                        [by_id[r] for r in waiting]
                    )
                    wanted = self.budget.estimate([by_id[r] for r in due])
                    if cap is None or spent + wanted > cap:
                        cap = self.budget.cap(spent, wanted, len(due))
                        _say(
                            f"submitting {len(due):,} requests to {self.model}, about "
                            f"${wanted:,.2f}"
                        )
                    newest = next((b.id for b in client.messages.batches.list(limit=1)), None)
                    batch = ledger.intend(due[:BATCH_REQUESTS], newest)
                    self._submit(client, ledger, batch, by_id)
                else:
                    self._collect(client, ledger, ledger.open[0])

    def _client(self) -> Anthropic:
        from anthropic import Anthropic

        key = os.environ.get(KEY)
        if not key:
            raise UserError(
                f"{KEY} is not set: set it to the API key of the account that pays for the "
                "generation"
            )
        return Anthropic(api_key=key, max_retries=RETRIES)

    def _submit(
        self, client: Anthropic, ledger: Ledger, batch: Batch, by_id: dict[str, Request]
    ) -> None:
        """Submits a recorded batch; retries only when it is certain that the batch was not
        created.
        """
        from anthropic import APIConnectionError, APIStatusError, RateLimitError

        body: list[Any] = [
            {
                "custom_id": ledger.custom_id(batch, r),
                "params": {
                    "model": self.model,
                    "max_tokens": self.max_tokens,
                    "messages": [{"role": "user", "content": by_id[r].prompt}],
                },
            }
            for r in batch.requests
        ]
        doubtful = False
        for attempt in range(RETRIES + 1):
            if doubtful and (found := self._find(client, ledger, batch)):
                ledger.name(batch, found)
                return
            batch = ledger.renew(batch)
            try:
                # The client must not retry this call by itself: that could create the batch twice.
                created = client.with_options(max_retries=0).messages.batches.create(requests=body)
            except RateLimitError as e:
                if attempt == RETRIES:
                    raise
                doubtful = False
                time.sleep(_pause(e.response.headers.get("retry-after"), attempt))
            except APIStatusError as e:
                if 400 <= e.status_code < 500 and e.status_code not in (408, 409, 499):
                    ledger.forget(batch)
                    raise
                doubtful = True
                if attempt == RETRIES:
                    raise
            except APIConnectionError:
                doubtful = True
                if attempt == RETRIES:
                    raise
            else:
                ledger.name(batch, created.id)
                return

    def _find(self, client: Anthropic, ledger: Ledger, batch: Batch) -> str | None:
        """Returns the id of a batch that may have been submitted; None when it was not. Waits up to
        ``settle`` s.
        """
        known = {b.id for b in ledger.batches.values()}
        foreign: set[str] = set()
        while True:
            late = time.time() - batch.begun > self.settle
            for candidate in client.messages.batches.list(limit=100):
                if candidate.id == batch.newest:
                    break
                if (
                    candidate.id in known | foreign
                    or candidate.archived_at
                    or _size(candidate) != len(batch.requests)
                ):
                    continue
                # Only its results have the ids of its requests.
                first = json.loads(self._results(client, candidate.id).partition("\n")[0])
                if ledger.owns(batch, first["custom_id"]):
                    return candidate.id
                foreign.add(candidate.id)
            if late:
                return None
            time.sleep(min(self.poll, self.settle / 4))

    def _collect(self, client: Anthropic, ledger: Ledger, batch: Batch) -> None:
        assert batch.id is not None
        for attempt in range(RETRIES + 1):
            try:
                ledger.collect(batch, self._results(client, batch.id))
                break
            except ValueError as e:
                if attempt == RETRIES:
                    raise StageFailed(f"{e}: run the same command later") from e
                time.sleep(_pause(None, attempt))
        _, answered = _progress_of(ledger)
        errors = [
            r["error"].get("error", r["error"])
            for _, r in ledger.results()
            if r["type"] == "errored"
        ]
        if not answered and errors:
            raise UserError(
                f"the Message Batches API answered no request of batch {batch.id}: "
                f"{errors[0].get('message')}"
            )

    def _results(self, client: Anthropic, id: str) -> str:
        """Waits for the end of a batch and returns its results file. Raises StageFailed when the
        API no longer has it.
        """
        while (batch := client.messages.batches.retrieve(id)).processing_status != "ended":
            time.sleep(self.poll)
        if not batch.results_url:
            raise StageFailed(
                f"the results of batch {id} do not exist any more: the API keeps them for 29 days"
            )
        # As text, which the client reads before returning, so that it retries an interrupted
        # transfer.
        return client.get(batch.results_url, cast_to=str)


def _progress_of(ledger: Ledger) -> tuple[Counter[str], set[str]]:
    """Returns the number of results of each request, and the requests that are answered."""
    results = list(ledger.results())
    answered = {r for r, result in results if _reply(result).state == "answered"}
    return Counter(r for r, _ in results), answered


def _reply(result: dict[str, Any]) -> Reply:
    if result["type"] != "succeeded":
        return Reply(result["type"])
    message = result["message"]
    if message["stop_reason"] == "refusal":
        return Reply("refused")
    text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
    return Reply("answered", text, cut=message["stop_reason"] == "max_tokens")


def _replies(ledger: Ledger, budget: Budget, by_id: dict[str, Request]) -> Replies:
    found: dict[str, Reply] = {}
    states: Counter[str] = Counter()
    for request, result in ledger.results():
        reply = _reply(result)
        states[reply.state] += 1
        if request not in found or found[request].state != "answered":
            found[request] = reply
    assert found.keys() == by_id.keys()
    account = {
        "batches": len(ledger.batches),
        "results": dict(sorted(states.items())),
        **_usage(ledger, budget),
    }
    return Replies(found, account)


def _usage(ledger: Ledger, budget: Budget) -> dict[str, Any]:
    """Returns the tokens and dollars of all results."""
    used = [
        result["message"]["usage"]
        for _, result in ledger.results()
        if result["type"] == "succeeded"
    ]
    tokens = {key: sum(usage[key] for usage in used) for key in ("input_tokens", "output_tokens")}
    return tokens | {"usd": round(budget.price(tokens["input_tokens"], tokens["output_tokens"]), 4)}


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _pause(asked: str | None, attempt: int) -> float:
    """Returns the seconds to wait: as the API asks, else doubling with each attempt; at most
    MAX_PAUSE.
    """
    try:
        return min(float(asked or ""), MAX_PAUSE)
    except ValueError:
        return min(0.5 * 2.0**attempt, MAX_PAUSE)


def _said(error: Any) -> str:
    return f"{error.status_code}: {first_line(error)}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
