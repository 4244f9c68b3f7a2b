"""A Ray connection as a context manager: the cluster at RAY_ADDRESS, else a local instance on
loopback.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

OBJECT_STORE_BYTES = 100 << 20
"""Size of Ray's object store. Only small objects pass through it; Ray's default is a third of the
memory.
"""

SLOW_START = "The current node timed out during startup"
"""Ray's words when its processes have not started within 30 seconds, which it does not let one
change.
"""
STARTS = 3
"""Times that a local instance is started before it counts as failed."""


@contextlib.contextmanager
def ray_session(cpus: int) -> Iterator[Any]:
    """Yields the ray module, connected. Afterwards disconnects and ends a local instance with all
    its processes.

    A local instance offers as many CPUs as this process may use, and at least ``cpus``.
    """
    cluster = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not cluster:
        # Keeps the node's address at 127.0.0.1. Otherwise Ray replaces it with the machine's
        # address, even if ray.init is given 127.0.0.1, and listens on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster:
        ray.init(cluster, **quiet)
    else:
        _start(
            ray,
            num_cpus=max(len(os.sched_getaffinity(0)), cpus),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config={"worker_niceness": 0},  # Ray's default is 15
            **quiet,
        )
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, **settings: Any) -> None:
    """Starts a local instance, again if the machine was too busy for it."""
    for left in reversed(range(STARTS)):
        try:
            ray.init("local", **settings)
            return
        except Exception as e:  # Ray has no class for it
            if SLOW_START not in str(e) or not left:
                raise
            # Ray ends the processes of the failed start when this process ends.
            ray.shutdown()
