"""Measures the peak memory of tensors in real steps, beside the planner's forecast.

    python -m tests.trainer.planning.footprint CASES      (RANK, WORLD_SIZE)

is one rank. CASES is JSON: [folder, [tokens of a row, ...]] of each; the folder holds config.yaml,
and every group runs two micro-batches of those rows. It writes rankN.json into each folder: bytes.
``tests.bench.pace`` measures seconds on the same ground.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.files import read_json
from data_prep.tokenizer import tokenizers
from trainer.batching.flops import Shape
from trainer.planning import memory
from trainer.recipe import load as configs
from trainer.run import base_model


class LiveBytes(TorchDispatchMode):
    """Follows every storage on a kind of device, from the operator that makes it to its end.

    FSDP2 empties and refills some in place. torch's own MemTracker does not take a second
    micro-batch. What a kernel allocates for itself is not seen, nor is what gloo does in its
    threads.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.sizes: dict[int, tuple[int, Any]] = {}
        self.level = self.peak = 0
        self.resize = torch.UntypedStorage.resize_

    def __enter__(self) -> LiveBytes:
        def resize(storage: Any, size: int) -> None:
            self.resize(storage, size)
            if storage._cdata in self.sizes:
                self._note(storage)

        torch.UntypedStorage.resize_ = resize
        for tensor in gc.get_objects():
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        self.held = self.level
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self.resize
        super().__exit__(*exception)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        return result

    def see(self, tensor: torch.Tensor) -> None:
        """Takes note of the size of a tensor's storage, or of its shard's, where it lies on the
        device.
        """
        if tensor.device.type == self.device:
            self._note(getattr(tensor, "_local_tensor", tensor).untyped_storage())

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        before, reference = self.sizes.get(key) or (
            0,
            weakref.ref(storage, lambda _: self.forget(key)),
        )
        self.sizes[key] = storage.nbytes(), reference
        self.level += storage.nbytes() - before
        self.peak = max(self.peak, self.level)

    def forget(self, key: int) -> None:
        """Takes note of a storage's end."""
        self.level -= self.sizes.pop(key)[0]


@dataclass(frozen=True)
class Case:
    """A configuration whose peak is forecast and measured."""

    name: str
    ranks: int
    lengths: tuple[int, ...]
    overrides: tuple[str, ...]


WIDE = tuple(
    f"model.init.{key}"
    for key in ("hidden_size=256", "intermediate_size=1024", "num_hidden_layers=6")
)
UNTIED, BF16, SP2 = (
    "model.init.tie_word_embeddings=false",
    "train.precision=bf16",
    "train.sequence_parallel=2",
)
NONE, SELECTIVE, FULL = (f"train.checkpointing={kind}" for kind in ("none", "selective", "full"))
CASES = (
    Case("0.6M 1 rank none", 1, (600, 200), (NONE,)),
    Case("5.5M 1 rank selective untied", 1, (300, 212), (SELECTIVE, *WIDE, UNTIED)),
    Case("0.6M 2 ranks full", 2, (700, 324), (FULL,)),
    Case("5.4M 2 ranks full", 2, (300, 212), (FULL, *WIDE)),
    Case("5.4M 2 ranks sp2 selective", 2, (300, 212), (SELECTIVE, SP2, *WIDE)),
    Case("5.5M 2 ranks sp2 none bf16", 2, (300, 212), (NONE, SP2, *WIDE, UNTIED, BF16)),
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank."""

    case: Case
    forecast: float
    peak: int
    rss: int


def compare(folder: Path, cases: Sequence[Case] = CASES) -> list[Footprint]:
    """Runs the cases, those of one number of ranks in the same processes, and forecasts them."""
    footprints = []
    for case, shape, setup, measured in run("tests.trainer.planning.footprint", folder, cases):
        forecast = sum(memory.peak(shape, setup).values())
        footprints.append(Footprint(case, forecast, measured["peak"], measured["rss"]))
    return footprints


def run(
    module: str, folder: Path, cases: Sequence[Case]
) -> Iterator[tuple[Case, Shape, memory.Setup, dict[str, Any]]]:
    """Every case, laid out, and what ``module`` measured of it as rank 0."""
    made = [
        (case, folder / str(i), *_prepare(folder / str(i), case)) for i, case in enumerate(cases)
    ]
    for ranks, of_ranks in groupby(made, key=lambda x: x[0].ranks):
        alike = list(of_ranks)
        _launch(module, ranks, [(str(place), case.lengths) for case, place, *_ in alike])
        for case, place, shape, setup in alike:
            yield case, shape, setup, read_json(place / "rank0.json")


def _prepare(folder: Path, case: Case) -> tuple[Shape, memory.Setup]:
    """Leaves a frozen configuration and its model in ``folder``."""
    config = configs.load(
        "tiny", [f"run.root={folder}/runs", f"data.dir={folder}/data", *case.overrides]
    )
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    configs.write(config, folder / "config.yaml")
    train = config.train
    setup = memory.Setup(
        ranks=case.ranks,
        sequence_parallel=train.sequence_parallel,
        checkpointing=train.checkpointing,
        tokens=sum(case.lengths) // train.sequence_parallel,
        compute={"bf16": 2, "fp32": 4}[train.precision],
        sdpa=True,
        multi_tensor=False,
    )
    return Shape.of(read_json(Path(config.model.path) / "config.json")), setup


def _launch(module: str, ranks: int, cases: list[tuple[str, tuple[int, ...]]]) -> None:
    common = {"WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(cases)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).resolve().parents[3],
        )
        for rank in range(ranks)
    ]
    assert [process.wait() for process in processes] == [0] * ranks


def stepper(folder: Path, lengths: list[int]) -> Callable[[], None]:
    """Runs a step of the case in ``folder`` at each call; one has been run."""
    from trainer.engine.build import build_engine

    engine = build_engine(configs.read(folder / "config.yaml"), total_steps=10)
    rows = engine.pack(
        [
            {
                "input_ids": torch.randint(0, 250, (n,)),
                "loss_mask": torch.ones(n, dtype=torch.int64),
            }
            for n in lengths
        ]
    )
    supervised = 2 * engine.get_data_parallel_size() * sum(n - 1 for n in lengths)

    def step() -> None:
        with engine.train_mode():
            engine.train_step([rows, rows], supervised)

    step()  # makes the optimizer's state
    return step


def measure(folder: Path, lengths: list[int]) -> dict[str, Any]:
    """Bytes: held between steps, at the peak of one, and the process's largest resident set so
    far.
    """
    step = stepper(folder, lengths)
    gc.collect()
    with LiveBytes() as live:
        step()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"held": live.held, "peak": live.peak, "rss": rss}


def main(
    cases: list[tuple[str, list[int]]], measure: Callable[[Path, list[int]], dict[str, Any]]
) -> None:
    """Is one rank: leaves what it measures of every case in the case's folder."""
    import torch.distributed as dist

    from trainer.process import process_group

    rank = process_group.join("cpu", f"file://{cases[0][0]}/meeting")
    for folder, lengths in cases:
        gc.collect()
        (Path(folder) / f"rank{rank}.json").write_text(json.dumps(measure(Path(folder), lengths)))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), measure)
