"""Whatever happens to a run, the same command finishes it, bit for bit as if nothing had happened.

Each trial injures real ranks, started by the real command, and runs the command again until it is
through; several injuries share a trial where each leaves the next one something to go on from.
"""

import itertools
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import (
    EPOCH,
    KILLED,
    SAVE_EVERY,
    TOTAL,
    VALIDATE_EVERY,
    Trial,
    differences,
)

pytestmark = pytest.mark.timeout(1800)

FAILED, STOPPED = 1, 75
SHARD = "shard-00001-model-00001-of-00001.safetensors"


def finish(trial: Trial, reference: Trial) -> str:
    """Runs the command to its end and compares; returns what it printed."""
    output = trial.attempt(0)
    assert differences(reference.run, trial.run) == []
    assert trial.run.partial_checkpoints == []
    assert trial.run.latest.read_text() == f"step_{TOTAL}\n"
    return output


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(0, 2), *(pytest.param(seed, 6, marks=pytest.mark.slow) for seed in (1, 2, 3))],
)
def test_a_rank_killed_at_a_random_step(
    trial: Trial, reference: Trial, seed: int, kills: int
) -> None:
    draw = random.Random(seed)
    for step in sorted(draw.sample(range(TOTAL - 1), kills)):
        rank = draw.randrange(2)
        output = trial.attempt(FAILED, "kill_rank", rank=rank, step=step, share=draw.random())
        assert f"rank {rank} exited -9" in output
    finish(trial, reference)
    assert trial.outcomes == [None] * kills + ["finished"]


@pytest.mark.slow
def test_all_killed_at_each_moment_of_a_save_and_at_an_epochs_end(
    trial: Trial, reference: Trial
) -> None:
    trial.attempt(KILLED, "kill_all_in_a_shard", step=8)
    trial.attempt(KILLED, "kill_all_before_the_rename", step=8)
    trial.attempt(KILLED, "kill_all_before_latest", step=8)
    assert trial.run.latest.read_text() == "step_4\n"
    trial.attempt(KILLED, "kill_all_once_saved", step=EPOCH)
    finish(trial, reference)
    assert trial.starts == [0, 4, 4, 8, EPOCH]
    for attempt in (2, 3):
        assert ".step_8.partial is ignored: its save was interrupted" in trial.log(attempt)
    assert "resuming from runs/tiny/checkpoints/step_8\n" in trial.log(4)


@pytest.mark.slow
def test_stop_signals_in_a_validation_in_a_step_and_in_saves(
    trial: Trial, reference: Trial
) -> None:
    trial.attempt(STOPPED, "signal_in_a_validation")
    assert trial.run.checkpoints[-1] == VALIDATE_EVERY
    trial.attempt(STOPPED, "signal_in_a_step", step=9)
    trial.attempt(STOPPED, "signals_in_every_save")
    output = finish(trial, reference)
    assert trial.outcomes == ["stopped", "stopped", "stopped", "finished"]
    assert all(b > a for a, b in itertools.pairwise(trial.starts))
    assert f"resuming from runs/tiny/checkpoints/step_{trial.starts[3]}\n" in output


@pytest.mark.slow
def test_a_disk_that_is_full_once_and_then_stays_full(trial: Trial, reference: Trial) -> None:
    output = trial.attempt(FAILED, "fill_the_disk", saves=[2, 5, 6])
    once = (
        "the checkpoint of step 8 could not be saved (rank 1: [Errno 27] File too large): retrying"
    )
    assert once in trial.log(1)
    assert "twice in a row: make room in runs/tiny" in output
    assert trial.outcomes == ["failed"]
    assert trial.run.partial_checkpoints == []
    assert trial.run.checkpoints[-1] >= 12
    finish(trial, reference)


@pytest.mark.slow
def test_no_space_left_on_device(
    trial: Trial, reference: Trial, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(22 << 20)  # the base model and two checkpoints and a half
    trial = Trial(trial.folder, str(disk))
    output = trial.attempt(FAILED)
    assert "[Errno 28] No space left on device" in output
    assert trial.run.checkpoints[-1] == 8
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    finish(trial, reference)
    assert trial.starts == [0, 8]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.slow
def test_damaged_and_malicious_checkpoints_are_passed_over(trial: Trial, reference: Trial) -> None:
    marker = trial.folder / "executed"
    poison = f"cposix\nmkdir\n(V{marker}\ntR.".encode()
    trial.attempt(KILLED, "kill_all_once_saved", step=20)
    folders = {step: trial.run.checkpoint(step) for step in (8, 12, 16, 20)}
    flip_a_bit(folders[20] / SHARD)
    truncate(folders[16] / SHARD)
    (folders[12] / ".metadata").write_bytes(poison)
    (folders[8] / SHARD).write_bytes(poison)
    output = finish(trial, reference)
    assert trial.starts == [0, 4]
    for step, fault in {
        20: f"{SHARD} is missing or damaged",
        16: f"{SHARD} is missing or damaged",
        12: ".metadata is not in its manifest",
        8: f"{SHARD} is missing or damaged",
    }.items():
        assert f"runs/tiny/checkpoints/step_{step} is skipped: {fault}\n" in output
    assert not marker.exists()
    pickle.loads(poison)  # what would have happened
    assert marker.exists()


@pytest.mark.slow
def test_a_rank_that_stops_answering_ends_the_attempt(trial: Trial, reference: Trial) -> None:
    output = trial.attempt(FAILED, "stop_rank", "train.hang_minutes=0.2", rank=1, step=9)
    assert "rank 1 did not exit by itself (stopped)" in output
    assert "no progress for train.hang_minutes=0.2 on rank 0" in output
    stacks = trial.log(1).split("rank 0 made no progress; its threads:\n")[1]
    assert "in train_step" in stacks
    finish(trial, reference)


def test_a_bug_in_a_step_keeps_its_traceback(trial: Trial) -> None:
    output = trial.attempt(FAILED, "wrong_shape", step=2)
    assert "Traceback (most recent call last)" in trial.log(1)
    assert "ValueError: operands could not be broadcast together" in output
    assert trial.outcomes == [None]


@pytest.mark.parametrize(
    ("control", "differs", "same"),
    [
        ("forget_generators", "loss", "lr"),
        pytest.param("forget_schedule", "lr", "rows", marks=pytest.mark.slow),
        pytest.param("forget_a_step", "rows", "lr", marks=pytest.mark.slow),
    ],
)
def test_what_a_resume_leaves_out_is_found(
    trial: Trial, reference: Trial, control: str, differs: str, same: str
) -> None:
    """It differs in ``differs`` by its second step, and in its last weights, but nowhere in
    ``same``.
    """
    shutil.copytree(reference.run.root, trial.run.root)
    for step in trial.run.checkpoints[2:]:
        shutil.rmtree(trial.run.checkpoint(step))
    trial.attempt(0, control)
    first = trial.starts[1]
    assert first == 2 * SAVE_EVERY
    found = differences(reference.run, trial.run)
    assert any(text.startswith(f"2: step {first + 2}: {differs}") for text in found)
    assert any(text.startswith(f"step_{TOTAL}: shard-") for text in found)
    assert not any(f": {same}" in text for text in found)
