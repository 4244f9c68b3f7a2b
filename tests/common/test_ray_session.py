"""A local Ray instance starts on a busy machine too, without a home folder, and beside a stale
address; it listens on loopback and wants its token.
"""

import inspect
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import node

from common.errors import StageFailed, UserError
from common.ray_session import SLOW_START, STARTS, ray_session
from tests.conftest import ROOT


def test_ray_says_a_slow_start_in_these_words() -> None:
    assert SLOW_START in " ".join(inspect.getsource(node).replace('"', "").split())


@pytest.mark.parametrize(
    ("slow", "words", "starts"),
    [(STARTS - 1, SLOW_START, True), (STARTS, SLOW_START, False), (1, "no port", False)],
)
def test_a_slow_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, slow: int, words: str, starts: bool
) -> None:
    failures = [Exception(words)] * slow

    def init(*args: Any, **values: Any) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if starts:
        with ray_session(1):
            assert not failures
    else:
        busy = words == SLOW_START
        told = pytest.raises(StageFailed if busy else Exception, match="busy" if busy else words)
        with told, ray_session(1):
            pass


HOMELESS = """
import psutil
import ray  # as other packages do

from common.ray_session import ray_session
from tests.common.test_ray_session import knock

with ray_session(1) as ray:
    print(ray.get(ray.remote(lambda: 6 * 7).remote()), ray.cluster_resources()["CPU"])
with ray_session(1) as ray:  # a process starts several, one after the other
    print(ray.get(ray.remote(lambda: 6 * 7).remote()), ray.cluster_resources()["CPU"])
    places = {
        place.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process().children(recursive=True)
        for place in process.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    }
    address = ray.get_runtime_context().gcs_address
    print("listens at", *sorted(places))
    print("with its token:", knock(address))
    print("with another:", knock(address, RAY_AUTH_TOKEN="0" * 64))
"""
KNOCK = """
import sys
from ray._raylet import GcsClient

print(len(GcsClient(address=sys.argv[1], cluster_id=None).internal_kv_keys(b"", timeout=5)) > 0)
"""


def knock(address: str, **token: str) -> str:
    """Returns what another process gets that asks Ray for its keys."""
    own = {k: v for k, v in os.environ.items() if not token or k != "RAY_AUTH_TOKEN_PATH"}
    words = [sys.executable, "-c", KNOCK, address]
    done = subprocess.run(words, env=own | token, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or ("refused" if "InvalidAuthToken" in done.stderr else done.stderr)


@pytest.mark.timeout(180)
def test_ray_needs_no_home_listens_on_loopback_and_wants_its_token(tmp_path: Path) -> None:
    """Ray keeps its token in the home folder, and sockets, whose paths are short, in TMPDIR."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS],
        env=variables | {"HOME": "/proc/nobody", "TMPDIR": str(long)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["42", "42"]
    assert done.stdout.splitlines()[2:] == [
        "listens at 127.0.0.1",
        "with its token: True",
        "with another: refused",
    ]
    assert list(long.iterdir()) == [], "the token is gone"


def test_a_stale_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        for value in (address, f"ray://{address}"):
            monkeypatch.setenv("RAY_ADDRESS", value)
            with pytest.raises(UserError, match="Ray does not answer there: unset RAY_ADDRESS"):
                ray_session(1).__enter__()
