"""Steps of the engine on given rows, on several ranks.

    python -m tests.trainer.engine.ranks FOLDER

runs the cases of FOLDER/cases.json, each in its folder.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.engine.build import build_engine
from trainer.process import cpu_platform
from trainer.process import process_group as ranks
from trainer.recipe import load as configs

LENGTHS = ((30, 10), (7, 3), (55, 20), (12, 11), (41, 5))
"""(tokens, prompt tokens) of each row."""
SUPERVISED = sum(length - prompt for length, prompt in LENGTHS)


def rows() -> list[dict[str, torch.Tensor]]:
    """Random rows in the form that the dataset gives them."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for length, prompt in LENGTHS:
        mask = torch.ones(length, dtype=torch.int64)
        mask[:prompt] = 0
        made.append(
            {"input_ids": torch.randint(0, 250, (length,), generator=generator), "loss_mask": mask}
        )
    return made


def _break(what: str) -> None:
    from trainer.engine import attention, loss
    from trainer.engine import fsdp as engines

    pack, sums = engines.pack, loss._sums
    if what == "scale":
        loss._sums = lambda *args: sums(*args[:-1], 1.0)
    if what == "prompts":
        engines.pack = lambda rows, *args: pack(
            [row | {"loss_mask": torch.ones_like(row["loss_mask"])} for row in rows], *args
        )
    if what == "exchange":
        attention.all_to_all_single = lambda _, x, **__: x
    replaced: dict[str, Any] = {
        "documents": lambda p: p | {"cu_seqlens": p["cu_seqlens"][[0, -1]]},
        "shift": lambda p: p | {"supervised": (p["supervised"] - 1).clamp(min=0)},
    }
    if what in replaced:
        engines.pack = lambda *args: engines.Packed(**replaced[what](vars(pack(*args))))


@dataclass(frozen=True)
class Case:
    """A step on ``ranks`` ranks; ``plan`` is [group][micro-batch] -> rows, ``broken`` a piece to
    break.
    """

    ranks: int
    plan: list[list[list[int]]]
    overrides: tuple[str, ...] = ()
    broken: str = ""


def step(rank: int, folder: Path, case: Case) -> None:
    """Runs ``case`` as ``rank`` on FOLDER/rows.pt, a validation and then a step; leaves sums of the
    one and token losses, gradients, means and new weights of the other in FOLDER/rankN.pt.
    """
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case.ranks)}
    ranks.join("cpu", f"file://{folder}/meeting")
    engine = build_engine(configs.read(folder / "config.yaml"), total_steps=10)
    _break(case.broken)
    made = torch.load(folder / "rows.pt", weights_only=True)
    mine = case.plan[engine.get_data_parallel_rank()]
    packed_rows = [engine.pack([made[i] for i in micro]) for micro in mine]
    with engine.eval_mode():
        arrivals = [engine.evaluate(micro) for micro in packed_rows]
        validated = sum(arrival.read().double() for arrival in arrivals)
    ran: list[tuple[Any, torch.Tensor]] = []
    grads: dict[str, torch.Tensor] = {}
    forward, optimize = engine.forward, engine.optimizer_step

    def forward_and_keep(packed: Any, scale: float) -> Any:
        out = forward(packed, scale)
        ran.append((packed, out[1]))
        return out

    def keep_and_optimize() -> float:
        grads.update({name: _whole(p.grad) for name, p in engine.module.named_parameters()})
        return optimize()

    engine.forward, engine.optimizer_step = forward_and_keep, keep_and_optimize
    with engine.train_mode():
        tokens = SUPERVISED * (2 if case.broken == "normalisation" else 1)
        means = engine.train_step(packed_rows, tokens).read().means
        weights = {name: _whole(p.detach()) for name, p in engine.module.named_parameters()}
    made_of = zip(mine, ran, strict=True)
    saved = {
        "losses": [
            part
            for micro, (packed, values) in made_of
            for part in _by_row(micro, packed, values, engine)
        ],
        "means": tuple(means),
        "validated": validated,
        "grads": grads,
        "weights": weights,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    torch.save(saved, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _whole(x: torch.Tensor) -> torch.Tensor:
    """A copy of it, gathered from all ranks where it is sharded."""
    from torch.distributed.tensor import DTensor

    return (x.full_tensor() if isinstance(x, DTensor) else x).clone()


def forked(count: int, target: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Exit codes of ``target(rank, *arguments)`` on ``count`` ranks forked from here, where verl is
    imported once.
    """
    torch.set_num_threads(1)
    cpu_platform.use("cpu")
    importlib.import_module("trainer.engine.fsdp")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=(rank, *arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def main(root: Path) -> None:
    """Runs the cases in ROOT."""
    for name, case in json.loads((root / "cases.json").read_text()).items():
        codes = forked(case["ranks"], step, root / name, Case(**case))
        (root / name / "codes.json").write_text(json.dumps(codes))


def _by_row(
    micro: list[int], packed: Any, values: torch.Tensor, engine: Any
) -> list[tuple[int, torch.Tensor]]:
    """This rank's token losses, split by row."""
    degree = engine.ulysses_sequence_parallel_size
    place = engine.ulysses_device_mesh["sp"].get_local_rank() if degree > 1 else 0
    where = packed.supervised + place * packed.input_ids.shape[1]
    ends = torch.tensor([LENGTHS[i][0] for i in micro]).cumsum(0)
    row = torch.bucketize(where, ends, right=True)
    return [(i, values[row == n]) for n, i in enumerate(micro)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
