"""A process group of one CPU process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SCRIPT = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainer.process import process_group

process_group.join("cpu", f"file://{sys.argv[1]}")
model = torch.nn.Linear(3, 3)
fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
model(torch.ones(1, 3)).sum().backward()
print(*[(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()])
dist.destroy_process_group()
"""


def test_autograd_has_no_thread_for_devices_that_are_not_there(tmp_path: Path) -> None:
    """One of them has ended a process with SIGABRT."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "meeting")],
        env=os.environ | {"RANK": "0", "WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gloo" in done.stdout and "autograd" not in done.stdout
