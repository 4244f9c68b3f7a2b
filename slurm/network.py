"""Rendezvous of a job's processes: free ports, and the addresses by which Slurm reaches the
nodes.
"""

from __future__ import annotations

import ipaddress
import random
import re
import socket
import subprocess

from common.errors import UserError

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


def addresses(nodes: str, here: str) -> dict[str, str]:
    """Returns {node name: IPv4 address} for a Slurm node list that includes this host's node,
    ``here``.

    A node that the controller does not show has its name as its address, Slurm's own default.
    Raises UserError when a node's address does not resolve.
    """
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True
    ).stdout.split()
    shown = subprocess.run(
        ["scontrol", "show", "node", "-o", nodes], capture_output=True, text=True
    ).stdout
    known = dict(re.findall(r"^NodeName=(\S+).*?\bNodeAddr=(\S+)", shown, re.MULTILINE))
    found = {}
    for node in listed:
        name = known.get(node, node)
        try:
            found[node] = socket.gethostbyname(name)
        except OSError as e:
            raise UserError(
                f"the address {name} of node {node} does not resolve on {here} ({e}): "
                f"see scontrol show node {node}"
            ) from e
    others = [
        a for node, a in found.items() if node != here and not ipaddress.ip_address(a).is_loopback
    ]
    if others and ipaddress.ip_address(found[here]).is_loopback:
        # Debian's /etc/hosts maps a host's own name to a loopback address, which other nodes cannot
        # reach.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(
                (others[0], PORTS.start)
            )  # UDP: only selects the local address, sends nothing
            found[here] = s.getsockname()[0]
    return found
