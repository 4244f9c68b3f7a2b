"""What wandb's own files hold after a resume."""

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf
from wandb.proto import wandb_internal_pb2

from common.files import write_json
from trainer.loop.loggers import Tracker
from trainer.run.folder import Run
from trainer.run.step_metrics import StepMetrics

BLOCK, FULL, LAST = 2**15, 1, 4
"""The file is a header of seven bytes, then LevelDB's log: blocks of records in up to many parts,
each with a checksum, a length and whether it is the whole, the first, a middle or the last part.
"""


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    data, place, whole = file.read_bytes(), 7, b""
    while place < len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, part = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if part in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def losses(file: Path) -> dict[int, float]:
    found = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            found[int(items["_step"])] = json.loads(items["train/loss"])
    return found


def step(number: int, loss: float) -> StepMetrics:
    rates = {"lr": 1e-3, "tokens": 9, "tokens_per_s": 9.0, "tokens_per_s_per_gpu": 9.0}
    times = {"seconds": 1.0, "mean_seconds": 1.0, "data_seconds": 0.0, "eta_s": 0.0}
    return StepMetrics(
        step=number,
        total=7,
        epoch=1,
        loss=loss,
        grad_norm=None,
        mfu=None,
        balance=1.0,
        fill=1.0,
        peak_memory_gb=1.0,
        skipped=False,
        **rates,
        **times,
    )


def train(run: Run, name: str, first: int, last: int, loss: float) -> None:
    attempt = run.new_attempt()
    write_json(attempt.provenance, {"first_step": first})
    config = OmegaConf.create({"run": {"name": name}, "train": {"loggers": ["wandb"]}})
    with Tracker(config, run, attempt, first) as tracker:
        for number in range(first + 1, last + 1):
            tracker.log(step(number, loss))
    wandb.teardown()  # waits for the process that writes the file


def ids(run: Run) -> set[str]:
    opened = (r.run.run_id for file in files(run) for r in records(file))
    return {name for name in opened if name}


def files(run: Run) -> list[Path]:
    return sorted(
        (run.root / "wandb").glob("offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime
    )


def test_a_resumed_runs_newest_file_has_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after step 5, resumed from step 2, moved, resumed again from step 6."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Run(tmp_path / "demo")
    train(run, "demo", 0, 5, 1.0)
    train(run, "demo", 2, 6, 2.0)
    run.root.rename(tmp_path / "moved")
    run = Run(tmp_path / "moved")
    train(run, "moved", 6, 7, 3.0)
    first, second, third = map(losses, files(run))
    assert first == dict.fromkeys(range(1, 6), 1.0)
    assert second == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0, 6: 2.0}
    assert third == second | {7: 3.0}
    assert len(ids(run)) == 1


@pytest.mark.parametrize("name", ["exp/seed1", "a b#?%:\\é", "x" * 130])
def test_a_name_that_wandb_refuses_is_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Run(tmp_path / name)
    train(run, name, 0, 1, 1.0)
    assert losses(*files(run)) == {1: 1.0}


def test_alarms_go_to_the_boards_and_the_command_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Run(tmp_path / "demo")
    attempt = run.new_attempt()
    write_json(attempt.provenance, {"first_step": 0})
    settings = {"loggers": ["wandb", "tensorboard"], "on_alarm": "curl secret"}
    config = OmegaConf.create({"run": {"name": "demo"}, "train": settings})
    alarm = {"kind": "loss", "text": "high"}
    with Tracker(config, run, attempt, 0) as tracker:
        tracker.log(replace(step(1, 1.0), alarms=[alarm]))
    wandb.teardown()
    (file,) = files(run)
    alerts = [r.alert for r in records(file) if r.WhichOneof("record_type") == "alert"]
    assert [(a.title, a.text) for a in alerts] == [
        ("loss at step 1", "ALARM (loss) at step 1: high")
    ]
    boards = b"".join(f.read_bytes() for f in run.root.rglob("*tfevents*"))
    assert b"ALARM (loss) at step 1: high" in boards
    written = b"".join(f.read_bytes() for f in run.root.rglob("*") if f.is_file())
    assert b"curl secret" not in written
