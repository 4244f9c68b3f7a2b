"""A loopback server that speaks the Message Batches API, keeps account of what it would charge for,
and misbehaves.

    POST /v1/messages/batches                create
    GET  /v1/messages/batches                list, newest first
    GET  /v1/messages/batches/ID             retrieve
    GET  /v1/messages/batches/ID/results     results, JSONL in an order of its own
    POST /control    {"kill": [pid, n, when]}: SIGKILL pid before, in (a submission alone) or
                                             after the first call from the n-th on
    GET  /state      every result of every batch, and the calls

What it does to whom is decided by hashes, so that each run of a test meets the same mishaps.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

USAGE = {"input_tokens": 100, "output_tokens": 50}
Answer = Callable[[str, str], str]
"""(request id, prompt) -> reply."""


@dataclass(frozen=True)
class Mishaps:
    """Shares of requests that fail, by kind of failure."""

    limited: float = 0.0
    """Share of submissions refused with 429."""
    lost: float = 0.0
    """Share of submissions accepted, but answered with 500 or a closed connection."""
    failed: float = 0.0
    """Share of submissions that fail with 500 and are not accepted."""
    torn: float = 0.0
    """Share of results files that are truncated."""
    errored: float = 0.0
    expired: float = 0.0
    refused: float = 0.0
    """Share of requests, at their first submission."""
    hopeless: tuple[str, ...] = ()
    """Requests that are refused each time."""
    polls: int = 1
    """Looks at a batch before it has ended."""


@dataclass
class State:
    """The server's state."""

    mishaps: Mishaps
    answer: Answer
    batches: list[dict[str, Any]] = field(default_factory=list)
    submissions: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    kill: tuple[int, int, str] | None = None
    lock: Lock = field(default_factory=Lock)

    def strikes(self, share: float, *what: Any) -> bool:
        return random.Random(repr(what)).random() < share

    def create(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        results = [self.result(r["custom_id"], r["params"]) for r in requests]
        random.Random(len(self.batches)).shuffle(results)
        batch = {"id": f"msgbatch_{len(self.batches):04d}", "results": results, "polls": 0}
        self.batches.append(batch)
        return batch

    def result(self, custom_id: str, params: dict[str, Any]) -> dict[str, Any]:
        name = custom_id.rpartition("-")[2]
        times = self.submissions[name] = self.submissions.get(name, 0) + 1
        assert len(custom_id) <= 64 and custom_id.replace("-", "").isalnum()
        first = times == 1
        if first and self.strikes(self.mishaps.errored, "errored", name):
            error = {"type": "error", "error": {"type": "api_error", "message": "overheated"}}
            return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}
        if first and self.strikes(self.mishaps.expired, "expired", name):
            return {"custom_id": custom_id, "result": {"type": "expired"}}
        refused = name in self.mishaps.hopeless or (
            first and self.strikes(self.mishaps.refused, "refused", name)
        )
        text = "" if refused else self.answer(name, params["messages"][0]["content"])
        message = {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "model": params["model"],
            "usage": USAGE,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "refusal" if refused else "end_turn",
        }
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}

    def shown(self, batch: dict[str, Any], address: str) -> dict[str, Any]:
        ended = batch["polls"] >= self.mishaps.polls
        kinds = [r["result"]["type"] for r in batch["results"]]
        counts = {
            kind: kinds.count(kind) if ended else 0
            for kind in ("succeeded", "errored", "expired", "canceled")
        }
        url = f"{address}/v1/messages/batches/{batch['id']}/results"
        return {
            "id": batch["id"],
            "type": "message_batch",
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts | {"processing": 0 if ended else len(kinds)},
            "results_url": url if ended else None,
            "archived_at": None,
        }


class Handler(BaseHTTPRequestHandler):
    """Handles one call."""

    protocol_version = "HTTP/1.1"
    state: State
    key: str

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/control":
            self.state.kill = tuple(body["kill"]) if body["kill"] else None
            return self.reply(200, {})
        if self.key not in (
            self.headers["x-api-key"],
            (self.headers["authorization"] or "").removeprefix("Bearer "),
        ):
            return self.reply(
                401,
                {"type": "error", "error": {"type": "authentication_error", "message": "bad key"}},
            )
        state = self.state
        with state.lock:
            self.call("create")
            when, n = state.mishaps, len(state.calls)
            if state.strikes(when.limited, "limited", n):
                return self.reply(
                    429, {"error": {"type": "rate_limit_error"}}, {"retry-after": "0.01"}
                )
            if state.strikes(when.failed, "failed", n):
                return self.reply(500, {"error": {"type": "api_error"}})
            batch = state.create(body["requests"])
            self.die("in")
            if state.strikes(when.lost, "lost", n):
                if n % 2:
                    self.close_connection = True
                    return None
                return self.reply(500, {"error": {"type": "api_error"}})
            return self.reply(200, state.shown(batch, self.address))

    def do_GET(self) -> None:
        state = self.state
        path, _, query = self.path.partition("?")
        if path == "/state":
            return self.reply(
                200, {"batches": [b["results"] for b in state.batches], "calls": state.calls}
            )
        with state.lock:
            self.call(
                "list"
                if path.endswith("batches")
                else "results"
                if path.endswith("results")
                else "retrieve"
            )
            if path.endswith("batches"):
                asked = dict(part.split("=") for part in query.split("&"))
                newest = state.batches[::-1]
                after = next(
                    (i + 1 for i, b in enumerate(newest) if b["id"] == asked.get("after_id")), 0
                )
                page = [state.shown(b, self.address) for b in newest[after:][: int(asked["limit"])]]
                ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
                more = after + len(page) < len(newest)
                return self.reply(200, {"data": page, "has_more": more, **ends})
            batch = next(b for b in state.batches if b["id"] in path)
            if not path.endswith("results"):
                batch["polls"] += 1
                return self.reply(200, state.shown(batch, self.address))
            text = "".join(
                json.dumps(r, ensure_ascii=False) + "\n" for r in batch["results"]
            ).encode()
            torn = state.strikes(state.mishaps.torn, "torn", len(state.calls))
            self.respond(200, text, {}, cut=len(text) // 2 if torn else None)

    @property
    def address(self) -> str:
        return f"http://{self.headers['host']}"

    def call(self, name: str) -> None:
        self.state.calls.append(name)
        self.die("before")

    def die(self, moment: str) -> None:
        kill = self.state.kill
        if kill and len(self.state.calls) >= kill[1] and moment == kill[2]:
            os.kill(kill[0], signal.SIGKILL)
            self.state.kill = None

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.respond(status, json.dumps(value).encode(), headers or {})

    def respond(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        try:
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:cut])
            self.wfile.flush()
        except OSError:  # the client is dead
            self.close_connection = True
        if cut is not None:
            self.close_connection = True
        time.sleep(0.002 * (self.state.kill is not None))
        self.die("after")


@contextmanager
def serving(mishaps: Mishaps, answer: Answer, key: str) -> Iterator[str]:
    """Yields the address of a server in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def serve() -> None:
        handler = type("Bound", (Handler,), {"state": State(mishaps, answer), "key": key})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        there.send(server.server_address[1])
        server.handle_error = lambda *_: None  # a client that was killed
        server.serve_forever()

    process = context.Process(target=serve, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.kill()
        process.join()
