"""Ray for the length of a block: the cluster at RAY_ADDRESS, else an instance of this machine on loopback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

OBJECT_STORE_BYTES = 100 << 20
"""Enough for what crosses it here; Ray would take a third of the memory."""


@contextlib.contextmanager
def ray_session(cpus: int) -> Iterator[Any]:
    """Yields the ray module, connected; ends a local instance afterwards, with everything it started.

    A local instance offers this machine's cores, and at least ``cpus``.
    """
    cluster = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not cluster:
        # Off, the node's address is 127.0.0.1. Ray would replace that by the machine's address otherwise,
        # even where ray.init is given it, and listen on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster:
        ray.init(cluster, **quiet)
    else:
        ray.init(
            "local", num_cpus=max(len(os.sched_getaffinity(0)), cpus), include_dashboard=False,
            _node_ip_address="127.0.0.1", object_store_memory=OBJECT_STORE_BYTES,
            _system_config={"worker_niceness": 0},  # 15 otherwise
            **quiet,
        )  # fmt: skip
    try:
        yield ray
    finally:
        ray.shutdown()
