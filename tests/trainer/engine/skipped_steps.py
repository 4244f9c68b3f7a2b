"""Steps whose gradient is now and then not finite, by the engine's own update and by verl's.

    python -m tests.trainer.engine.skipped_steps FOLDER      (holds config.yaml, leaves skipped.pt)

One process for each of 1 and 2 ranks; rank 0 of each leaves what differed.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.trainer.engine.ranks import SUPERVISED, forked, rows
from trainer.process import process_group
from trainer.recipe import load as configs

FACTORS = (float("nan"), 1.0, 1.0, float("inf"), float("nan"), 1.0, 1e30, 1.0)
"""By which the loss of each step is multiplied, on the last rank alone. 1e30 leaves gradients that
are finite and a norm that is infinite.
"""


def updated(config: Any, optimizer_step: Any) -> list[dict[str, Any]]:
    """Everything that an update may change, after each step with ``optimizer_step`` as the
    engine's.
    """
    from torch.distributed.tensor import DTensor

    from trainer.engine.build import build_engine

    engine = build_engine(config, total_steps=2 * len(FACTORS))
    assert engine.skips_on_device
    type(engine).optimizer_step = optimizer_step
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    packed, forward, seen = engine.pack(rows()[rank::size]), engine.forward, []
    for factor in FACTORS:

        def broken(packed: Any, scale: float, by: float = factor) -> Any:
            loss, *others = forward(packed, scale)
            return loss * (by if rank == size - 1 else 1.0), *others

        engine.forward = broken
        with engine.train_mode():
            figures = engine.train_step([packed], SUPERVISED).read()
        engine.lr_scheduler_step()
        values: dict[str, Any] = {"norm": torch.tensor(figures.grad_norm)}
        values["lr"] = torch.tensor(engine.lr_scheduler.get_last_lr())
        for name, p in engine.module.named_parameters():
            assert isinstance(p, DTensor)
            values[name] = p.to_local().detach().clone()
            # Before its first update verl's optimizer has no state: that counts as zeros.
            state = engine.optimizer.state.get(p) or {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for key, x in state.items():
                values[f"{name} {key}"] = (x.to_local() if isinstance(x, DTensor) else x).clone()
        seen.append(values)
    return seen


def compare(rank: int, folder: Path, ranks: int) -> None:
    """Is one rank; the first leaves the names of what differed on any rank, and how far the
    counters and the weights went.
    """
    import torch.distributed as dist
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from trainer.engine.fsdp import Engine

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    process_group.join("cpu", f"file://{folder}/meeting{ranks}")
    config = configs.read(folder / "config.yaml")
    ours = updated(config, Engine.optimizer_step)
    verls = updated(config, FSDPEngineWithLMHead.optimizer_step)
    differ = [
        f"step {number}: {name}"
        for number, (mine, theirs) in enumerate(zip(ours, verls, strict=True), 1)
        for name in mine
        if not torch.equal(mine[name].nan_to_num(7.0), theirs[name].nan_to_num(7.0))
    ]
    counters = [
        sorted({x.item() for name, x in values.items() if name.endswith(" step")})
        for values in ours
    ]
    weights = [values["model.norm.weight"] for values in ours]
    moved = [bool((a != b).any()) for a, b in itertools.pairwise(weights)]
    result = {
        "differ": process_group.everyone(differ),
        "counters": counters,
        "moved": process_group.everyone(moved),
        "lr": [values["lr"].item() for values in ours],
        "finite": [bool(values["norm"].isfinite()) for values in ours],
    }
    if rank == 0:
        torch.save(result, folder / f"skipped{ranks}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    given = Path(sys.argv[1])
    assert not any(code for ranks in (1, 2) for code in forked(ranks, compare, given, ranks))
