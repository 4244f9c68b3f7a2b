"""An asynchronous save on a machine with GPUs: its thread asks no device for anything, unlike
torch's own writer.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint.filesystem as filesystem

from trainer.checkpoint import checkpoint
from trainer.run.folder import Run

TENSORS = {f"layer.{i}.weight": torch.full((400, 1000), float(i)) for i in range(20)}  # 1.6 MB each


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Records the calls that torch's writer makes to a fake GPU; one gloo rank."""
    calls: list[str] = []
    stream = SimpleNamespace(device_type="cuda", synchronize=lambda: calls.append("synchronize"))

    def current_stream(*_: object) -> SimpleNamespace:
        calls.append("current_stream")
        return stream

    device = SimpleNamespace(
        current_stream=current_stream, stream=lambda _: contextlib.nullcontext()
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(filesystem, "_get_available_device_type", lambda: "cuda")
    monkeypatch.setattr(filesystem, "_get_device_module", lambda _: device)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield calls
    dist.destroy_process_group()


def save(writer: dcp.HuggingFaceStorageWriter) -> None:
    """Saves tensors that are in host memory already, in the background, as
    ``trainer.checkpoint.saver`` does.
    """
    staged = SimpleNamespace(
        stage=lambda state: state,
        should_synchronize_after_execute=False,
        _synchronize_after_execute=False,
    )
    group = dist.new_group(backend="gloo")
    dcp.async_save(
        TENSORS, storage_writer=writer, process_group=group, async_stager=staged
    ).result()


def test_the_writer_waits_for_no_stream(asked: list[str], tmp_path: Path) -> None:
    run = Run(tmp_path)
    (run.root / "checkpoints").mkdir()
    save(checkpoint.Writer(run, 1, checkpoint.split(TENSORS, 1), {}, {}))
    assert asked == []
    read = {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}
    dcp.load(read, storage_reader=dcp.HuggingFaceStorageReader(str(run.checkpoint(1))))
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


def test_the_writer_of_torch_does(asked: list[str], tmp_path: Path) -> None:
    save(dcp.HuggingFaceStorageWriter(str(tmp_path), save_distributed=True))
    assert "current_stream" in asked and "synchronize" in asked
