"""Saves and loads of a real engine on several ranks.

    python -m tests.trainer.checkpoint.saves ROOT

runs the phases below, each on ranks forked from this process.

ROOT holds PHASE.yaml, the frozen configuration of each phase that is to run; each rank leaves
ROOT/PHASE-rankN.pt.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.errors import StageFailed, UserError
from tests.trainer.engine.ranks import SUPERVISED, forked, rows
from trainer.process import process_group
from trainer.recipe import load as configs
from trainer.run.folder import Attempt, Run

SEED = 3
PHASES = {"first": 4, "fewer": 2, "again": 4, "more": 4, "dropout": 2, "full": 2}
"""Phase -> ranks."""
ADAPTERS = {"adapters": 1, "adapters_again": 1, "adapters_bf16": 1}
"""The same of a QLoRA."""


def _trained(engine: Any, steps: int) -> list[float]:
    """The losses of ``steps`` steps over all rows, dealt to the data-parallel groups in turn."""
    import torch.distributed as dist

    losses = []
    for _ in range(steps):
        mine = rows()[engine.get_data_parallel_rank() :: engine.get_data_parallel_size()]
        with engine.train_mode():
            means = engine.train_step([engine.pack(mine)], SUPERVISED).read().means
        engine.lr_scheduler_step()
        total = torch.tensor(means.loss, dtype=torch.float64)
        dist.all_reduce(total)
        losses.append(total.item())
    return losses


def _state(engine: Any) -> dict[str, torch.Tensor]:
    from torch.distributed.tensor import DTensor

    from trainer.checkpoint import checkpoint

    tensors, numbers = checkpoint.state(engine)
    whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    scalars = {
        name: torch.tensor(n, dtype=torch.float64)
        for name, n in numbers.items()
        if isinstance(n, float)
    }
    return {name: tensor.clone() for name, tensor in (whole | scalars).items()}


def first(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Trains three steps, saves and trains on while that is written."""
    _trained(engine, 3)
    state = _state(engine)
    saver = save("four", 3)
    drawn = torch.rand(3)
    losses = _trained(engine, 3)
    saver.finish()
    return {"state": state, "losses": losses, "drawn": drawn}


def fewer(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Goes on from what four ranks saved, and saves the same again."""
    load("four", 3)
    drawn = torch.rand(3)
    state = _state(engine)
    save("two", 3).finish()
    return {"state": state, "losses": _trained(engine, 3), "drawn": drawn}


def again(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """The ranks that saved."""
    load("four", 3)
    return {"drawn": torch.rand(3), "state": _state(engine), "losses": _trained(engine, 3)}


def more(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Goes on from what two ranks saved, with sequence parallelism."""
    load("two", 3)
    return {"state": _state(engine), "losses": _trained(engine, 3)}


def dropout(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Attention weights are dropped: two steps, the same again from the checkpoint, and with other
    generators.
    """
    from trainer.checkpoint import rng
    from trainer.engine import attention

    for layer in engine.module.model.layers:
        layer.self_attn.attention_dropout = 0.2
    _trained(engine, 1)
    saver = save("drop", 1)
    losses = _trained(engine, 2)
    saver.finish()
    load("drop", 1)
    same = _trained(engine, 2)
    load("drop", 1)
    rng.seed(SEED, 0, 0)
    try:
        attention.check_dropout("varlen", 0.2)
        refused = ""
    except UserError as e:
        refused = str(e)
    return {"losses": losses, "same": same, "other": _trained(engine, 2), "refused": refused}


def full(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """One rank may write no file above 100 KB: the first save fails, its second try does, then the
    run is over.
    """
    import torch.distributed as dist

    _trained(engine, 1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    save("full", 1).finish()
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    saver = save("full", 2)
    settled = saver.settle()
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    saver.save(3, {"identity": {}})
    saver.finish()
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    saver.save(4, {"identity": {}})
    try:
        saver.finish()
        return {"settled": settled}
    except StageFailed as e:
        return {"settled": settled, "error": str(e)}


def adapters(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Trains three steps, saves, looks at all rows as a step and as a validation do, and trains
    on.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    _trained(engine, 3)
    state = _state(engine)
    saver = save("adapters", 3)
    drawn = torch.rand(3)
    with engine.eval_mode():
        with torch.enable_grad():
            sums = engine.forward(engine.pack(rows()), 1 / SUPERVISED)[2]
        with torch.no_grad():
            _, seen, validated = engine.forward(engine.pack(rows()))
    base = {
        name.replace(".base_layer", ".weight"): dequantize_4bit(
            part.weight.data, part.weight.quant_state
        )
        for name, part in engine.module.named_modules()
        if isinstance(part, Linear4bit) and name.endswith(".base_layer")
    }
    frozen = [name for name, p in engine.module.named_parameters() if not p.requires_grad]
    types = {name: p.dtype for name, p in engine.module.named_parameters() if p.requires_grad}
    states = {str(value["state1"].dtype) for value in engine.optimizer.state.values()}
    losses = _trained(engine, 3)
    saver.finish()
    left = {
        "state": state,
        "losses": losses,
        "drawn": drawn,
        "seen": seen,
        "sums": (sums, validated),
        "base": base,
        "frozen": frozen,
    }
    return left | {"types": {str(kind) for kind in types.values()}, "optimizer": states}


def adapters_again(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """Another process, from the checkpoint."""
    load("adapters", 3)
    return {"drawn": torch.rand(3), "state": _state(engine), "losses": _trained(engine, 3)}


def adapters_bf16(
    engine: Any, save: Callable[[str, int], Any], load: Callable[[str, int], Any]
) -> dict[str, Any]:
    """The same steps in bf16."""
    return {
        "losses": _trained(engine, 6),
        "types": {str(p.dtype) for p in engine.module.parameters()},
    }


def phase(rank: int, name: str, root: Path) -> None:
    """Runs one phase as ``rank``."""
    import torch.distributed as dist

    from trainer.checkpoint import checkpoint
    from trainer.checkpoint.retention import Retention
    from trainer.checkpoint.saver import Saver
    from trainer.engine.build import build_engine
    from trainer.process.watchdog import Watchdog

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str((PHASES | ADAPTERS)[name]),
    }
    process_group.join("cpu", f"file://{root}/meeting-{name}")
    engine = build_engine(configs.read(root / f"{name}.yaml"), total_steps=10)
    group = dist.new_group(backend="gloo")
    watchdog = Watchdog(10, Attempt(root).stacks(rank))

    def save(run: str, step: int) -> Saver:
        saver = Saver(Run(root / run), engine, Retention(9, None, 0), watchdog, group)
        saver.save(step, {"identity": {}})
        return saver

    def load(run: str, step: int) -> Any:
        return checkpoint.load(Run(root / run).checkpoint(step), engine, SEED, group)

    torch.manual_seed(100 + rank)
    left = globals()[name](engine, save, load)
    torch.save(left, root / f"{name}-rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(root: Path) -> None:
    """Runs the phases that are configured, in order."""
    for name, count in (PHASES | ADAPTERS).items():
        if (root / f"{name}.yaml").exists() and any(codes := forked(count, phase, name, root)):
            sys.exit(f"phase {name}: {codes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
