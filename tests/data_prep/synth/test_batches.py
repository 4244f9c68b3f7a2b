"""The Batches backend against a server that speaks the API: killed, turned away, left without an
answer.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from common.errors import StageFailed, UserError
from data_prep.synth import anthropic_batches
from data_prep.synth.anthropic_batches import ATTEMPTS, Batches
from data_prep.synth.budget import Budget
from data_prep.synth.generation import Replies
from data_prep.synth.prompts import Request
from tests.data_prep.synth.server import Mishaps, serving

KEY = "sk-not-a-key"
TOKEN = "0123456789ab"
REQUESTS = [Request(f"{i:06d}", f"prompt {i}", expected=30.0) for i in range(40)]
TROUBLE = Mishaps(
    limited=0.2,
    lost=0.3,
    failed=0.2,
    torn=0.3,
    errored=0.15,
    expired=0.15,
    refused=0.1,
    hopeless=("000007",),
    polls=2,
)


def echo(name: str, prompt: str) -> str:
    return f"reply to {prompt}\u2028{name}"


def backend(**changes: Any) -> Batches:
    budget = Budget(1.0, 5.0, changes.pop("max_usd", 100.0))
    return Batches("claude-haiku-4-5", 100, budget, **{"poll": 0.01, "settle": 0.2} | changes)


def state(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/state") as response:
        return json.load(response)


def control(address: str, kill: list[Any] | None) -> None:
    body = json.dumps({"kill": kill}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{address}/control", body)).close()


def paid(address: str) -> Counter[str]:
    """How often each request was answered, and so paid for; refusals aside."""
    answered: Counter[str] = Counter()
    for results in state(address)["batches"]:
        for result in results:
            message = result["result"].get("message")
            if message and message["stop_reason"] == "end_turn":
                answered[result["custom_id"].rpartition("-")[2]] += 1
    return answered


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(anthropic_batches.KEY, KEY)
    monkeypatch.setattr(anthropic_batches, "BATCH_REQUESTS", 9)
    monkeypatch.setattr(anthropic_batches, "MAX_PAUSE", 0.05)


def check(address: str, replies: Replies) -> None:
    hopeless = replies.by_id.pop("000007")
    assert hopeless.state == "refused"
    assert {name: reply.text for name, reply in replies.by_id.items()} == {
        r.id: echo(r.id, r.prompt) for r in REQUESTS if r.id != "000007"
    }
    assert paid(address) == Counter(replies.by_id.keys())


def test_every_item_is_paid_for_once_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(TROUBLE, echo, KEY) as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        replies = backend().replies(REQUESTS, tmp_path, TOKEN)
        calls = Counter(state(address)["calls"])
        check(address, replies)
        results = replies.account["results"]
        assert (
            results["answered"] == 39
            and results["refused"] >= ATTEMPTS
            and min(results.values()) > 2
        )
        paid_for = results["answered"] + results["refused"]
        assert replies.account["input_tokens"] == 100 * paid_for
        assert replies.account["usd"] == pytest.approx((100 + 5 * 50) * paid_for / 1e6, abs=1e-4)
        # Once more: nothing is asked of the API.
        again = backend().replies(REQUESTS, tmp_path, TOKEN)
        assert again.account == replies.account and Counter(state(address)["calls"]) == calls
    assert KEY not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())


def begin(folder: Path) -> tuple[int, int]:
    """A client in a process of its own that waits for a byte; its pid and where to write it."""
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # tqdm's own lock is shared with forks, and one that is killed while it holds it would
            # stop all others.
            tqdm.set_lock(threading.RLock())
            os.read(wait, 1)
            backend().replies(REQUESTS, folder, TOKEN)
            code = 0
        finally:
            os._exit(code)
    os.close(wait)
    return pid, go


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_and_rerun_every_item_is_paid_for_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("anthropic")  # once, rather than in each client

    rng, deaths = random.Random(seed), Counter[str]()
    with serving(TROUBLE if seed else Mishaps(polls=2, hopeless=("000007",)), echo, KEY) as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        for _ in range(200):
            pid, go = begin(tmp_path)
            moment = rng.choice(["before", "in", "in", "after", "later"])
            n = len(state(address)["calls"])
            control(address, [pid, n + rng.randint(1, 3), moment] if moment != "later" else None)
            os.write(go, b"!")
            os.close(go)
            if moment == "later":
                time.sleep(rng.uniform(0, 0.1))
                os.kill(pid, 9)
            status = os.waitpid(pid, 0)[1]
            if status == 0:
                break
            assert os.WIFSIGNALED(status), "the client failed by itself"
            deaths[moment] += 1
        else:
            pytest.fail("never finished")
        control(address, None)
        assert sum(deaths.values()) >= 5, deaths
        calls = len(state(address)["calls"])
        check(address, backend().replies(REQUESTS, tmp_path, TOKEN))
        assert len(state(address)["calls"]) == calls


def test_batches_of_others_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another generation submits batches of the same size to the same account, also while a
    response is lost.
    """
    with serving(Mishaps(lost=0.5, polls=1), echo, KEY) as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        pids = []
        for name in ("a", "b"):
            if (pid := os.fork()) == 0:
                replies = backend().replies(REQUESTS, tmp_path / name, f"{name * 12}")
                os._exit(0 if len(replies.by_id) == 40 else 1)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
        assert set(paid(address).values()) == {2}


def test_what_is_over_the_budget_is_never_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = Budget(1.0, 5.0, None).estimate(REQUESTS)
    assert estimate == pytest.approx((sum(len(r.prompt) for r in REQUESTS) / 2.5 + 5 * 480) / 1e6)
    with serving(Mishaps(), echo, KEY) as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        with pytest.raises(
            UserError, match=r"40 requests, about \$0\.00 is over data\.synth\.max_usd"
        ):
            backend(max_usd=estimate * 0.9).replies(REQUESTS, tmp_path / "a", TOKEN)
        with pytest.raises(
            UserError, match=r"allow it with data\.synth\.max_usd=0\.01 or more"
        ):  # nobody to ask
            backend(max_usd=None).replies(REQUESTS, tmp_path / "b", TOKEN)
        assert state(address)["batches"] == []
        # Half is answered, for 0.007 dollars, which count.
        half = backend(max_usd=estimate * 40)
        half.replies(REQUESTS[:20], tmp_path / "c", TOKEN)
        with pytest.raises(UserError, match="spent is over"):
            backend(max_usd=0.0075).replies(REQUESTS, tmp_path / "c", TOKEN)
        assert len(half.replies(REQUESTS, tmp_path / "c", TOKEN).by_id) == 40
        assert set(paid(address).values()) == {1}


def test_a_wrong_key_a_rejected_request_and_no_connection_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Mishaps(errored=1.0), echo, "another") as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        with pytest.raises(UserError, match="rejected a request: 401") as error:
            backend().replies(REQUESTS, tmp_path, TOKEN)
        assert KEY not in str(error.value)
        monkeypatch.setenv(anthropic_batches.KEY, "another")
        with pytest.raises(
            UserError, match="answered no request of batch msgbatch_0000: overheated"
        ):
            backend().replies(REQUESTS, tmp_path, TOKEN)
    monkeypatch.setattr(anthropic_batches, "RETRIES", 1)
    with pytest.raises(StageFailed, match="cannot be reached"):
        backend().replies(REQUESTS, tmp_path, TOKEN)
    monkeypatch.delenv(anthropic_batches.KEY)
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY is not set"):
        backend().replies(REQUESTS, tmp_path / "new", TOKEN)
