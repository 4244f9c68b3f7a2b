"""Where the processes of a job meet: free ports, and the addresses that Slurm itself reaches the nodes by."""

from __future__ import annotations

import ipaddress
import random
import re
import socket
import subprocess

from common.errors import UserError

PORTS = range(20000, 32000)
"""Below those that Linux hands out by itself, so that a port that is free stays free until its owner listens on it."""


def free_port() -> int:
    """A TCP port of this host that nobody listens on; a random one, so that jobs on one node do not meet."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as s:
            # As its owner will: a port whose last connections are closing is free.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port of {PORTS.start}-{PORTS.stop - 1} is free on {socket.gethostname()}")


def listens(address: str, port: int) -> bool:
    """Whether somebody does, on that port."""
    try:
        socket.create_connection((address, port), timeout=10).close()
    except OSError:
        return False
    return True


def addresses(nodes: str, here: str) -> dict[str, str]:
    """IPv4 address by node name, of a Slurm node list that has this host's node ``here`` in it.

    Raises UserError when Slurm or the name service does not know a node.
    """
    shown = subprocess.run(["scontrol", "show", "node", "-o", nodes], capture_output=True, text=True).stdout
    names = dict(re.findall(r"^NodeName=(\S+).*?\bNodeAddr=(\S+)", shown, re.MULTILINE))
    if here not in names:
        raise UserError(f"scontrol show node {nodes} does not say where {here} is")
    try:
        found = {node: socket.gethostbyname(name) for node, name in names.items()}
    except OSError as e:
        raise UserError(f"a node of {nodes} has an address that does not resolve here ({e})") from e
    others = [a for node, a in found.items() if node != here and not ipaddress.ip_address(a).is_loopback]
    if others and ipaddress.ip_address(found[here]).is_loopback:
        # Debian's /etc/hosts gives a host's own name such an address, which the others cannot reach.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((others[0], PORTS.start))  # sends nothing
            found[here] = s.getsockname()[0]
    return found
