"""One rank that measures what its tensors take at the peak of a real step, for one configuration after another.

    python -m tests.trainer.footprint CASES      (RANK, WORLD_SIZE)

CASES is JSON: [folder, [tokens of a row, ...]] of each; the folder holds config.yaml, and every group runs two
micro-batches of those rows. Writes rankN.json into each folder: bytes.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WARM = 2
"""Steps before the measured one: the first makes the optimizer's state."""


class LiveBytes(TorchDispatchMode):
    """Follows every storage from the operator that makes it to its end; FSDP2 empties and refills some in place.

    torch's own MemTracker does not take a second micro-batch. What a kernel allocates for itself is not seen, nor is
    what gloo does in its threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[int, Any]] = {}
        self.level = self.peak = 0
        self.resize = torch.UntypedStorage.resize_

    def __enter__(self) -> LiveBytes:
        def resize(storage: Any, size: int) -> None:
            self.resize(storage, size)
            self.see(storage)

        torch.UntypedStorage.resize_ = resize
        for tensor in gc.get_objects():
            if isinstance(tensor, torch.Tensor):
                self.see(getattr(tensor, "_local_tensor", tensor).untyped_storage())
        self.held = self.level
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self.resize
        super().__exit__(*exception)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(getattr(tensor, "_local_tensor", tensor).untyped_storage())
        return result

    def see(self, storage: Any) -> None:
        """Takes note of a storage's present size."""
        key = storage._cdata
        before, reference = self.sizes.get(key) or (0, weakref.ref(storage, lambda _: self.forget(key)))
        self.sizes[key] = storage.nbytes(), reference
        self.level += storage.nbytes() - before
        self.peak = max(self.peak, self.level)

    def forget(self, key: int) -> None:
        """Takes note of a storage's end."""
        self.level -= self.sizes.pop(key)[0]


def measure(folder: Path, lengths: list[int]) -> dict[str, int]:
    """Bytes: held between steps, at the peak of one, and the process's largest resident set so far."""
    from trainer import config as configs
    from trainer.build import build_engine

    engine = build_engine(configs.read(folder / "config.yaml"), total_steps=10)
    rows = [{"input_ids": torch.randint(0, 250, (n,)), "loss_mask": torch.ones(n, dtype=torch.int64)} for n in lengths]
    supervised = 2 * engine.get_data_parallel_size() * sum(n - 1 for n in lengths)

    def step() -> None:
        with engine.train_mode():
            engine.train_step([rows, rows], supervised)

    for _ in range(WARM):
        step()
    gc.collect()
    with LiveBytes() as live:
        step()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"held": live.held, "peak": live.peak, "rss": rss}


def main(cases: list[tuple[str, list[int]]]) -> None:
    import torch.distributed as dist

    from trainer import ranks

    rank = ranks.join("cpu", f"file://{cases[0][0]}/meeting")
    for folder, lengths in cases:
        gc.collect()
        (Path(folder) / f"rank{rank}.json").write_text(json.dumps(measure(Path(folder), lengths)))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
