"""Room on the disk for a run's checkpoints and exports."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainer.doctor.conftest import program
from trainer.doctor import disk
from trainer.doctor.forecast import Outlook
from trainer.recipe import load as configs
from trainer.run.folder import Run


@pytest.mark.parametrize(
    ("free", "submits", "level"),
    [
        (55, True, "fatal"),
        (55, False, "fatal"),
        (57, True, "warning"),
        (57, False, "ok"),
        (139, True, "warning"),
        (141, True, "ok"),
    ],
)
def test_checkpoints_that_may_wait_for_their_evaluation_need_room_too(
    free: int, submits: bool, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run saves ten checkpoints of 12 GB. It keeps two and writes a third. The ten exports take
    2 GB each.
    """
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if submits:
        program(tmp_path, "sbatch", "exit 0")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**9))
    shape: Any = SimpleNamespace(trained_parameters=10**9, parameters=10**9)
    outlook = Outlook(shape, 100, 0, None, False, None)
    config = configs.load("tiny", ["train.save_every=10", "train.keep_last=2"])
    found, *_ = disk.check(config, Run(tmp_path / "run"), outlook)
    assert (found.what, found.level) == ("disk space", level)
    assert "need 56.0 GB" in found.cause
    assert ("140.0 GB if every evaluation waits" in found.cause) == submits
    assert ("train.save_every" in found.fix) == (level == "warning")


def test_a_runs_folder_may_change_while_its_weights_are_counted(tmp_path: Path) -> None:
    """As it does while the doctor looks on every node at once, or the run prunes."""
    kept, name = tmp_path / "kept.safetensors", "passing.safetensors"
    kept.write_bytes(b"12345")
    code = (
        "import pathlib, shutil, sys\nwhile True:\n"
        " for i in range(50):\n  p = pathlib.Path(sys.argv[1], f'{i}')\n"
    )
    code += "  p.mkdir()\n  (p / sys.argv[2]).write_bytes(b'x')\n  shutil.rmtree(p)\n"
    changing = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name])
    try:
        while not any(p.is_dir() for p in tmp_path.iterdir()):
            assert changing.poll() is None
        for _ in range(3000):
            assert sum(disk._sizes(tmp_path)) in (5, 6)
    finally:
        changing.kill()
        changing.wait()
