"""Ranks of a step: real processes, the second one on another machine as far as they can tell."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import environment
from tests.trainer.doctor.conftest import SMALL, program
from trainer.doctor import nodes
from trainer.process import process_group


def rank(folder: Path, number: int, job: int, *words: str, **more: str) -> subprocess.Popen[str]:
    program(folder, "scontrol", "echo localhost")
    values = {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": "here",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "warmstart", "doctor", "tiny", *SMALL, *words, "--json"],
        cwd=folder,
        env=environment() | values | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, {f["what"]: f for f in json.loads(out or "[]")}


def free_job() -> int:
    """A job id whose port is free."""
    return next(
        job for job in range(os.getpid(), os.getpid() + 12000) if nodes.is_free(port_of(job))
    )


def port_of(job: int) -> int:
    return int(
        process_group.slurm_environment(
            {
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_ID": "0",
                "SLURM_STEP_NODELIST": "here",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
                "SLURM_NTASKS": "2",
            }
        )["MASTER_PORT"]
    )


def test_ranks_compare_notes(folder: Path) -> None:
    """All is well but for a package of another version on the second rank."""
    program(folder, "scontrol", "echo localhost")
    metadata = folder / "site" / "numpy-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    job = free_job()
    other = f"{folder / 'site'}:{environment()['PYTHONPATH']}"
    first, second = rank(folder, 0, job), rank(folder, 1, job, PYTHONPATH=other)
    code, found = outcome(first)
    assert outcome(second) == (0, {})  # the first answers for the job
    assert code == 3
    assert [what for what, f in found.items() if f["level"] == "fatal"] == ["nodes differ"]
    assert (
        "numpy: " in found["nodes differ"]["cause"]
        and "; 9.9.9 on " in found["nodes differ"]["cause"]
    )
    assert (found["clock"]["level"], found["network"]["level"]) == ("ok", "ok")
    meeting = f"ranks meet at 127.0.0.1:{port_of(job)}; Gloo over lo, NCCL chooses one itself"
    assert found["network"]["cause"].startswith(meeting)
    assert "GB/s between 2 ranks" in found["all-reduce"]["cause"]


def test_a_rank_that_does_not_come_or_cannot_come_and_a_port_that_is_taken(folder: Path) -> None:
    program(folder, "scontrol", "echo localhost")
    soon, job = "train.hang_minutes=0.05", free_job()
    alone, lost = rank(folder, 0, job, soon), rank(folder, 1, job + 1, soon)
    with socket.create_server(("", port_of(job + 2))):
        code, found = outcome(rank(folder, 0, job + 2, soon))
    assert (code, found["port"]["level"]) == (3, "fatal")
    assert f"{port_of(job + 2)}, the ranks' rendezvous" in found["port"]["cause"]
    code, found = outcome(alone)
    assert (code, found["peers"]["level"]) == (3, "fatal")
    assert "no message from rank 1 of 2 within 3 s" in found["peers"]["cause"]
    code, found = outcome(lost)
    assert (code, found["peers"]["level"]) == (3, "fatal")
    assert (
        "rank 1 on" in found["peers"]["cause"]
        and "cannot reach 127.0.0.1" in found["peers"]["cause"]
    )


def test_clocks_that_differ_are_told() -> None:
    assert (nodes.clock(0.2).level, nodes.clock(3.0).level) == ("ok", "warning")
