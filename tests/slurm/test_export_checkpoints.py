"""Exports beside training: of each complete checkpoint once, at low priority, and none after it."""

import shutil
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from slurm import training
from slurm.commands.command_lines import Allocation
from slurm.commands.stack import Stack
from slurm.queue.export_checkpoints import export_each
from tests.conftest import STEPS
from trainer.run.folder import Run


def test_each_complete_checkpoint_is_exported_once(
    short_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One that fails is left to the job that evaluates it."""
    run, asked, over = Run(tmp_path / "run"), list[int](), Event()
    shutil.copytree(short_run, run.root, ignore=shutil.ignore_patterns("export"))
    shutil.copytree(run.checkpoint(STEPS), run.checkpoint(7))
    monkeypatch.chdir(short_run.parent.parent)

    def command(step: int) -> list[str]:
        asked.append(step)
        if step == 7:
            return ["sh", "-c", f"echo $(nice) $PLACE >'{tmp_path}/nice'; exit 3"]
        return [sys.executable, "-m", "warmstart", "export", str(run.root), str(step)]

    thread = Thread(target=export_each, args=(run, command, {"PLACE": "here"}, over, 0.1))
    thread.start()
    try:
        end = time.monotonic() + 600  # at the lowest priority it waits for what else runs here
        while run.exports != [STEPS] and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)
    finally:
        over.set()
        thread.join()
    assert run.exports == [STEPS] and asked == [7, STEPS]
    assert (tmp_path / "nice").read_text() == "19 here\n"
    assert "step 7 was not exported during training (exit code 3)" in capfd.readouterr().out


def test_where_each_command_is_a_step_of_its_own_nothing_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the CPUs that the ranks have."""
    asked: list[object] = []
    monkeypatch.setattr(training, "export_each", lambda *given: asked.append(given))
    for by_srun, count in ((True, 0), (False, 1)):
        stack = Stack(Allocation(2, 4, 8), ("python",), by_srun=by_srun)
        training._export(stack, Run(tmp_path), Event())
        assert len(asked) == count


def test_the_end_of_training_ends_an_export(tmp_path: Path) -> None:
    run, over = Run(tmp_path), Event()
    for step in (4, 8):
        run.checkpoint(step).mkdir(parents=True)
    (run.checkpoint(8) / "manifest.json").write_text("{}")
    began = tmp_path / "began"
    script = f"echo $0 >>'{began}'; exec sleep 60"
    thread = Thread(
        target=export_each,
        args=(run, lambda step: ["sh", "-c", script, str(step)], {}, over, 0.1),
    )
    thread.start()
    begin = time.monotonic()
    while not began.exists() and time.monotonic() < begin + 30:
        time.sleep(0.05)
    assert began.read_text() == "8\n", "step 4 is not complete"
    begin = time.monotonic()
    over.set()
    thread.join()
    assert time.monotonic() - begin < 10
