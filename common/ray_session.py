"""A Ray connection as a context manager: to the cluster at RAY_ADDRESS, otherwise to a local
instance on loopback.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import StageFailed, UserError
from common.progress import waiting

OBJECT_STORE_BYTES = 100 << 20
"""Size of Ray's object store if only small objects pass through it; Ray's default is a third of the
memory.
"""

LONGEST_TMPDIR = 40
"""Maximum bytes of a temporary folder's path, so that the paths of Ray's sockets in it stay within
Linux's 107 bytes.
"""
ANSWER_SECONDS = 10
SLOW_START = "The current node timed out during startup"
"""Ray's message when its processes have not started within 30 seconds, a limit that cannot be
configured.
"""
STARTS = 3
"""Number of attempts to start a local instance."""


@contextlib.contextmanager
def ray_session(
    cpus: int, gpus: int | None = None, object_store: int | None = OBJECT_STORE_BYTES
) -> Iterator[Any]:
    """Yields the ray module, connected. Disconnects afterwards; a local instance ends with all its
    processes.

    A local instance offers as many CPUs as this process may use, but at least ``cpus``; ``gpus``
    logical GPUs (None: those it finds); and an object store of ``object_store`` bytes (None: Ray's
    default). Raises UserError when nothing answers at RAY_ADDRESS, and StageFailed when the machine
    is too busy for a local instance.
    """
    cluster = os.environ.get("RAY_ADDRESS")
    if cluster == "local":
        cluster = None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not cluster:
        # Keeps the node's address at 127.0.0.1. Otherwise Ray replaces it with the machine's
        # address, even if ray.init is given 127.0.0.1, and listens on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_TMPDIR", folder_of_sockets())
        if not any(name.startswith("RAY_AUTH_") for name in os.environ):
            # Ray itself then sets the mode, which it may have read already.
            os.environ["RAY_AUTH_TOKEN_PATH"] = _token()
    elif not _answers(cluster):
        raise UserError(
            f"RAY_ADDRESS={cluster}: Ray does not answer there: unset RAY_ADDRESS to start it on "
            "this machine"
        )
    with waiting("connecting to Ray" if cluster else "starting Ray"):
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if cluster:
            ray.init(cluster, **quiet)
        else:
            # Ray has read the variable already if another package has imported it.
            ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
            _start(
                ray,
                num_cpus=max(len(os.sched_getaffinity(0)), cpus),
                num_gpus=gpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                object_store_memory=object_store,
                _system_config={"worker_niceness": 0},  # Ray's default is 15
                **quiet,
            )
    try:
        yield ray
    finally:
        with waiting("leaving Ray" if cluster else "stopping Ray"):
            ray.shutdown()


def folder_of_sockets() -> str:
    """Returns the temporary folder, or /tmp if its path is too long for sockets in it."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= LONGEST_TMPDIR else "/tmp"


@cache
def _token() -> str:
    """Returns a file with a secret for local instances. Only this user can read it, and it is
    deleted when this process ends. Ray would keep one in the home folder, which may not be
    writable.
    """
    handle, path = tempfile.mkstemp(prefix="ray-token-")
    with os.fdopen(handle, "w", encoding="ascii") as f:
        f.write(secrets.token_hex(32))
    atexit.register(Path(path).unlink, missing_ok=True)
    return path


def _answers(cluster: str) -> bool:
    """Returns whether something listens at HOST:PORT; True for an address of another form."""
    host, colon, port = cluster.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _start(ray: Any, **settings: Any) -> None:
    """Starts a local instance; tries again if the machine was too busy."""
    for left in reversed(range(STARTS)):
        try:
            ray.init("local", **settings)
            return
        except Exception as e:  # Ray has no class for it
            if SLOW_START not in str(e):
                raise
            # Ray ends the processes of the failed start when this process ends.
            ray.shutdown()
            if not left:
                raise StageFailed(
                    f"Ray did not start within 30 seconds, {STARTS} times in a row: this machine "
                    "is too busy; run the same command again when it is less so"
                ) from e
