"""Free TCP ports of this host, and whether somebody listens on one."""

from __future__ import annotations

import random
import socket

PORTS = range(20000, 32000)
"""Below Linux's ephemeral ports, so that a free port stays free until its owner listens on it."""


def free_port() -> int:
    """Returns a random free TCP port of this host; random, so that jobs on one node do not collide.

    Raises RuntimeError when every port of PORTS is taken.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as s:
            # The port's owner sets it too: a port whose last connections are still closing counts
            # as free.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError(
        f"no port of {PORTS.start}-{PORTS.stop - 1} is free on {socket.gethostname()}"
    )


def listens(address: str, port: int) -> bool:
    """Returns whether a connection to ``address``:``port`` succeeds within 10 seconds."""
    try:
        socket.create_connection((address, port), timeout=10).close()
    except OSError:
        return False
    return True
