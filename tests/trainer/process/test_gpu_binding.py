"""Which GPU is a rank's own, where Slurm shows it all of its node and where it shows one."""

from types import SimpleNamespace

import pytest

from common.errors import UserError
from trainer.process.gpu_binding import check_device, local_device, own_gpu, sharing


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The third rank of its node, on a torch with the GPUs that CUDA_VISIBLE_DEVICES names."""
    import os

    import torch

    def shown() -> list[str]:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]

    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(shown()))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(uuid=f"GPU-{shown()[index]}"),
    )
    return monkeypatch


@pytest.mark.parametrize(
    ("names", "index", "gpu"),
    [("0,1,2,3", 2, "GPU-2"), ("2", 0, "GPU-2"), ("MIG-abc", 0, "MIG-abc")],
    ids=["all", "one per task", "a slice"],
)
def test_a_ranks_own_gpu(visible: pytest.MonkeyPatch, names: str, index: int, gpu: str) -> None:
    visible.setenv("CUDA_VISIBLE_DEVICES", names)
    check_device("cuda")
    assert (local_device(), own_gpu()) == (index, gpu)


@pytest.mark.parametrize(
    ("names", "says"),
    [("", "sees no GPU: warmstart doctor says why"), ("0,1", "set --ntasks-per-node=2")],
)
def test_a_rank_without_a_gpu_is_refused(
    visible: pytest.MonkeyPatch, names: str, says: str
) -> None:
    visible.setenv("CUDA_VISIBLE_DEVICES", names)
    with pytest.raises(UserError, match=says):
        check_device("cuda")
    check_device("cpu")


def test_ranks_that_share_a_gpu_are_named() -> None:
    """Each sees one GPU, and it is the same: a binding that gave nothing to the other ranks."""
    assert sharing([("n1", "GPU-0"), ("n1", "GPU-1"), ("n2", "GPU-0")]) == ""
    fault = sharing([("n1", "GPU-0"), ("n1", "GPU-1"), ("n2", "GPU-0"), ("n1", "GPU-1")])
    assert fault.startswith("ranks 1, 3 on n1 have the same GPU")
