"""One srun task: one node of a job's Ray; the first node's task runs the evaluation on it when all nodes are there.

    srun ... python -m slurm.ray_node RUN base|STEP [key=value ...]

RAY_ADDRESS is where the first node is to listen, NODE_ADDRESSES has every node's address, and RAY_AUTH_TOKEN_PATH the
job's own token: a neighbour's Ray on the same node has other ports, another folder and another token. Only the
processes that were started here are ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.exit_codes import DONE, FAILED
from common.ray_session import OBJECT_STORE_BYTES, ray_session
from slurm import child_process, network

PATIENCE_SECONDS = 300
"""How long nodes are waited for: without the first one there is no Ray, without others it is smaller."""
END_SECONDS = 20
"""For Ray to end its processes before they are killed."""
POLL_SECONDS = 2
VARIABLES = {
    "RAY_worker_niceness": "0",  # 15 otherwise
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # nothing is left to move to another node
}


def main() -> int:
    """Returns the exit code of ``warmstart eval`` in the first task; 0 in the others, which end when it has."""
    run, *words = sys.argv[1:]
    first, work = child_process.is_first(), child_process.Stoppable()
    if not first and not _await_head():  # Ray itself gives up sooner
        return DONE
    with _node(first) as node:
        if not first:
            while network.listens(*_head()):
                time.sleep(POLL_SECONDS)
            return DONE
        code = FAILED
        if _await_head(node):
            _gather(int(os.environ["SLURM_JOB_NUM_NODES"]), work)
            code = work.run([sys.executable, "-m", "warmstart", "eval", run, *words])
        child_process.leave_code(Path(run), code)
    return code


@contextmanager
def _node(first: bool) -> Iterator[subprocess.Popen[bytes]]:
    """This node's ``ray start``, for the length of a block."""
    address, port = _head()
    own = dict(pair.split("=") for pair in os.environ["NODE_ADDRESSES"].split())[os.environ["SLURMD_NODENAME"]]
    place = [f"--address={address}:{port}"]
    if first:
        client = f"--ray-client-server-port={network.free_port()}"
        place = ["--head", f"--port={port}", "--include-dashboard=false", client]
    # Sockets' paths below it have at most 107 characters.
    with tempfile.TemporaryDirectory(
        prefix=f"ray-{os.environ['SLURM_JOB_ID']}-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        node = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *place,
                f"--node-ip-address={own}", f"--temp-dir={folder}", f"--num-cpus={os.environ['SLURM_CPUS_PER_TASK']}",
                f"--object-store-memory={OBJECT_STORE_BYTES}", f"--dashboard-agent-listen-port={network.free_port()}",
                "--include-log-monitor=false", "--disable-usage-stats",
            ],
            env=os.environ | VARIABLES,
            stdout=subprocess.DEVNULL,  # tells how to join, in many lines
            start_new_session=True,  # a request to stop is for the evaluation
            preexec_fn=child_process.bind_to_parent,
        )  # fmt: skip
        try:
            yield node
        finally:
            node.terminate()
            try:
                node.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()


def _head() -> tuple[str, int]:
    address, _, port = os.environ["RAY_ADDRESS"].partition(":")
    return address, int(port)


def _await_head(node: subprocess.Popen[bytes] | None = None) -> bool:
    """Whether the first node's Ray listens, as soon as it does; False where ``node`` ends before, or it takes long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and (node is None or node.poll() is None):
        if network.listens(*_head()):
            return True
        time.sleep(POLL_SECONDS)
    print(f"warmstart: no Ray at {os.environ['RAY_ADDRESS']}, seen from {os.environ['SLURMD_NODENAME']}", flush=True)
    return False


def _gather(count: int, work: child_process.Stoppable) -> None:
    """Waits for ``count`` nodes, and says when there are less."""
    end = time.monotonic() + PATIENCE_SECONDS
    with ray_session(cpus=0) as ray:
        while (there := sum(node["Alive"] for node in ray.nodes())) < count and not work.asked:
            if time.monotonic() > end:
                break
            time.sleep(POLL_SECONDS)
    print(f"warmstart: Ray has {there} of {count} nodes", flush=True)


if __name__ == "__main__":
    sys.exit(main())
