"""What a job script asks before it starts ranks: does the recipe compose, where is its run, which port is free.

    python -m slurm.start RECIPE [key=value ...]      prints "PORT RUN"

A recipe's error ends the job here, in its first seconds, said once.
"""

from __future__ import annotations

import random
import socket
import sys

from trainer import config as configs
from trainer.rundir import check

PORTS = range(20000, 32000)
"""Below those that Linux hands out by itself, so that a port that is free stays free until rank 0 listens on it."""
USAGE = 2


def main() -> int:
    """Prints the port and the run's folder; returns 2, with the reason on stderr, for a wrong recipe or override."""
    recipe, *overrides = sys.argv[1:]
    try:
        run = check(configs.load(recipe, overrides))
    except ValueError as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return USAGE
    print(free_port(), run.root)
    return 0


def free_port() -> int:
    """A TCP port of this host that nobody listens on; a random one, so that jobs on one node do not meet."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as s:
            # As rank 0 will: a port whose last connections are closing is free.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port of {PORTS.start}-{PORTS.stop - 1} is free on {socket.gethostname()}")


if __name__ == "__main__":
    sys.exit(main())
