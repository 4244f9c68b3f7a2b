"""The addresses at which a job's nodes reach each other, the network interface behind one, and free
ports.
"""

from __future__ import annotations

import ipaddress
import os
import random
import re
import socket
import subprocess

import psutil

from common.errors import UserError

SUFFIX = "NODE_SUFFIX"
"""Variable of the site file: the suffix of a node's name on the fast network."""
PORTS = range(20000, 32000)
"""Below Linux's ephemeral ports, so that a free port stays free until its owner listens on it."""
ANY_PORT = 9
"""A UDP socket connected to this port only gets a local address; nothing is sent."""


def hostnames(nodes: str) -> list[str]:
    """Returns the names of a Slurm node list, such as ``n[1-2]``."""
    return subprocess.run(
        ["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True
    ).stdout.split()


def addresses(nodes: str, here: str) -> dict[str, str]:
    """Returns {node name: IPv4 address} for a Slurm node list; ``here`` is this host's node.

    The address is the one that Slurm uses, or that of the node's name and NODE_SUFFIX. For a node
    that the controller does not show, the address is its name, Slurm's own default. Raises
    UserError when a node's address does not resolve.
    """
    listed = hostnames(nodes)
    suffix = os.environ.get(SUFFIX, "")
    known = {} if suffix else _slurms(nodes)
    found = {}
    for node in listed:
        name = known.get(node, node + suffix)
        try:
            found[node] = socket.gethostbyname(name)
        except OSError as e:
            see = f"{SUFFIX}={suffix} in slurm/site.env" if suffix else f"scontrol show node {node}"
            raise UserError(
                f"the address {name} of node {node} does not resolve on {here} ({e}): see {see}"
            ) from e
    others = [a for node, a in found.items() if node != here and not _is_loopback(a)]
    if others and here in found and _is_loopback(found[here]):
        # Debian's /etc/hosts maps a host's own name to a loopback address, which other nodes cannot
        # reach.
        found[here] = _source(others[0])
    return found


def _slurms(nodes: str) -> dict[str, str]:
    shown = subprocess.run(
        ["scontrol", "show", "node", "-o", nodes], capture_output=True, text=True
    ).stdout
    return dict(re.findall(r"^NodeName=(\S+).*?\bNodeAddr=(\S+)", shown, re.MULTILINE))


def interface(address: str) -> str | None:
    """Returns the name of the interface by which this host reaches ``address``, which may be its
    own; None when there is none.
    """
    try:
        own = _source(socket.gethostbyname(address))
    except OSError:
        return None
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == own for entry in entries):
            return name
    return None


def _source(address: str) -> str:
    """Returns this host's address on the way to ``address``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, ANY_PORT))
        return s.getsockname()[0]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


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
