"""Losses and gradients of the engine on many packings of rows, and the graphs that torch compiled
for them.

    python -m tests.cuda.packings FOLDER ...      (each holds config.yaml; leaves result.pt there)

Runs on a CPU, a process for each folder. Weights stay as they are: only forward and backward run.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.trainer.engine.ranks import forked

PACKINGS = 50


def lengths() -> list[list[int]]:
    """Tokens of the rows of every packing, from one row to seven; one group has none left."""
    generator = torch.Generator().manual_seed(7)
    made = [
        torch.randint(5, 60, (1 + n % 7,), generator=generator).tolist() for n in range(PACKINGS)
    ]
    made[PACKINGS // 2] = []
    return made


def measure(number: int, folders: list[Path]) -> None:
    """Leaves the losses of every token, the gradients, the number of graphs after each packing, and
    that of the last one's matmuls.
    """
    import torch.distributed as dist
    from torch._dynamo.utils import counters

    from trainer.engine.build import build_engine
    from trainer.process import process_group
    from trainer.recipe import load as configs

    folder = folders[number]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    process_group.join("cpu", f"file://{folder}/meeting")
    engine = build_engine(configs.read(folder / "config.yaml"), total_steps=10)
    generator = torch.Generator().manual_seed(5)
    losses, graphs = [], []
    with engine.train_mode():
        for index, packing in enumerate(lengths()):
            ids = [torch.randint(0, 250, (n,), generator=generator) for n in packing]
            rows = [{"input_ids": row, "loss_mask": torch.ones_like(row)} for row in ids]
            last = index == PACKINGS - 1
            with profile(activities=[ProfilerActivity.CPU]) if last else nullcontext() as profiled:
                loss, of_tokens, _ = engine.forward(engine.pack(rows), 1 / max(1, sum(packing)))
                loss.backward()
            losses.append(of_tokens)
            graphs.append(counters["stats"]["unique_graphs"])
        gradients = {name: p.grad.full_tensor() for name, p in engine.module.named_parameters()}
    matmuls = sum(event.name == "aten::mm" for event in profiled.events())
    found = {"losses": losses, "graphs": graphs, "gradients": gradients, "matmuls": matmuls}
    torch.save(found, folder / "result.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]]
    assert not any(forked(len(given), measure, given))
