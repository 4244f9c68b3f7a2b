"""One srun task: one node of a job's Ray cluster. The first node's task runs an evaluation or RL
once the nodes have joined.

    srun ... python -m slurm.nodes.ray_node RUN eval base|STEP|rl-N [key=value ...]
    srun ... python -m slurm.nodes.ray_node RUN rl START [key=value ...]

RAY_ADDRESS is the address on which the first node listens, NODE_ADDRESSES has every node's address,
and RAY_AUTH_TOKEN_PATH is the file of the job's own token: another job's Ray on the same node has
other ports, another folder and another token. Ends only the processes that it started.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common.exit_codes import DONE, FAILED, USAGE
from common.processes import die_with_parent
from common.ray_session import ray_session
from slurm.nodes.child_process import Stoppable
from slurm.queue.exit_code import is_first, leave_code
from trainer.process import network
from trainer.process.gpu_binding import drop_amd

RL = "rl"
SIZE = "RAY_NODE_OPTIONS"
"""Variable with the options of ``ray start`` for a node's resources."""
PATIENCE_SECONDS = 300
"""Seconds to wait for nodes. The first one is required; without the others the cluster is smaller.
"""
END_SECONDS = 20
"""Seconds that Ray has to end its processes before it is killed."""
POLL_SECONDS = 2
VARIABLES = {
    "RAY_worker_niceness": "0",  # Ray's default is 15
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # there is nothing to move to another node
}


def main() -> int:
    """Returns the exit code of the evaluation or of RL in the first task (1 without Ray). The other
    tasks return 0 when the first node's Ray has ended.
    """
    run, kind, *words = sys.argv[1:]
    first, work = is_first(), Stoppable()
    drop_amd(os.environ)
    if fault := hidden_gpus(os.environ):
        print(f"warmstart: {fault}", flush=True)
        if first:
            leave_code(Path(run), USAGE)
        return USAGE
    if not first and not _await_head():  # ray start would give up sooner than this
        return DONE
    with _node(first) as node:
        if not first:
            while network.listens(*_head()):
                time.sleep(POLL_SECONDS)
            return DONE
        code = FAILED
        if _await_head(node):
            count = int(os.environ["SLURM_JOB_NUM_NODES"])
            # An evaluation goes on with fewer nodes, verl does not.
            if _gather(count, work) == count or kind != RL:
                module = ("eval.rl.launch",) if kind == RL else ("warmstart", kind, run)
                code = work.run([sys.executable, "-m", *module, *words])
        leave_code(Path(run), code)
    return code


def hidden_gpus(environment: Mapping[str, str]) -> str:
    """Returns an error message if Slurm hides GPUs of the node from its only task, because they
    would be idle; empty if it hides none.
    """
    has = environment.get("SLURM_GPUS_ON_NODE", "")
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    shown = len(visible.split(",")) if visible else None
    if shown is None or not has.isdigit() or shown >= int(has):
        return ""
    node = environment["SLURMD_NODENAME"]
    return (
        f"{node} has {has} GPUs for this job, but its task sees only {visible}: add "
        "--gpu-bind=none to SRUN_OPTIONS in slurm/site.env"
    )


@contextmanager
def _node(first: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``ray start`` on this node during the block; yields its process."""
    address, port = _head()
    own = dict(pair.split("=") for pair in os.environ["NODE_ADDRESSES"].split())[
        os.environ["SLURMD_NODENAME"]
    ]
    place = [f"--address={address}:{port}"]
    if first:
        client = f"--ray-client-server-port={network.free_port()}"
        place = ["--head", f"--port={port}", "--include-dashboard=false", client]
    # In /tmp because the paths of Ray's sockets in it may have at most 107 characters.
    with tempfile.TemporaryDirectory(
        prefix=f"ray-{os.environ['SLURM_JOB_ID']}-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        node = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                *place,
                f"--node-ip-address={own}",
                f"--temp-dir={folder}",
                *shlex.split(os.environ[SIZE]),
                f"--dashboard-agent-listen-port={network.free_port()}",
                "--include-log-monitor=false",
                "--disable-usage-stats",
            ],
            env=os.environ | VARIABLES,
            stdout=subprocess.DEVNULL,  # many lines on how to join the cluster
            start_new_session=True,  # a stop request must reach the evaluation only
            preexec_fn=die_with_parent,
        )
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
    """Returns True once the first node's Ray listens; False if ``node`` exits first or
    PATIENCE_SECONDS pass.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and (node is None or node.poll() is None):
        if network.listens(*_head()):
            return True
        time.sleep(POLL_SECONDS)
    print(
        f"warmstart: node {os.environ['SLURMD_NODENAME']} cannot reach Ray at "
        f"{os.environ['RAY_ADDRESS']}",
        flush=True,
    )
    return False


def _gather(count: int, work: Stoppable) -> int:
    """Waits until Ray has ``count`` nodes, PATIENCE_SECONDS pass or a stop is requested; prints and
    returns how many it has.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    with ray_session(cpus=0) as ray:
        while (there := sum(node["Alive"] for node in ray.nodes())) < count and not work.asked:
            if time.monotonic() > end:
                break
            time.sleep(POLL_SECONDS)
    print(f"warmstart: Ray has {there} of {count} nodes", flush=True)
    return there


if __name__ == "__main__":
    sys.exit(main())
