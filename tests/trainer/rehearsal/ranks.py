"""Rehearsals on two ranks of this machine.

    python -m tests.trainer.rehearsal.ranks FOLDER RECIPE [key=value ...]

Each rank leaves the losses of a rehearsal, the plan of its steps and its weights in
FOLDER/rankN.pt. Then rank 1 computes wrong losses in another one, whose output goes to
FOLDER/brokenN.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.trainer.engine.ranks import forked
from trainer.engine.fsdp import Engine
from trainer.recipe import load as configs
from trainer.rehearsal import rehearse

RANKS = 2


def _enter(rank: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"SLURM_PROCID": str(rank), "SLURMD_NODENAME": f"n{rank}"}


def whole(rank: int, folder: Path, words: list[str]) -> None:
    """A rehearsal that keeps what the engine was given."""
    _enter(rank)
    seen: list[Any] = []
    train_step = Engine.train_step

    def keep(engine: Engine, batches: Any, tokens: int) -> Any:
        lengths = [list(packed.lengths) for packed in batches]
        masked = sum(len(packed.supervised) for packed in batches)
        seen.append((lengths, masked, tokens, len(engine.module.model.layers)))
        return train_step(engine, batches, tokens)

    Engine.train_step = keep
    losses = rehearse.rehearse(configs.load(*_recipe(words)), f"file://{folder}/meeting")
    torch.save({"losses": losses, "seen": seen}, folder / f"rank{rank}.pt")


def broken(rank: int, folder: Path, words: list[str]) -> None:
    """A rehearsal in which a kernel of rank 1 gives no numbers."""
    _enter(rank)
    sys.stdout = sys.__stdout__ = (folder / f"broken{rank}").open("w")
    sys.excepthook = rehearse._tell
    if rank == 1:
        forward = Engine.forward

        def nothing(engine: Engine, *args: Any) -> Any:
            loss, by_token, sums = forward(engine, *args)
            return loss * float("nan"), by_token, sums * float("nan")

        Engine.forward = nothing
    try:
        rehearse.rehearse(configs.load(*_recipe(words)), f"file://{folder}/second")
    except Exception as e:
        sys.excepthook(type(e), e, e.__traceback__)


def _recipe(words: list[str]) -> tuple[str, list[str]]:
    recipe, *overrides = words
    return recipe, overrides


if __name__ == "__main__":
    root, *arguments = sys.argv[1:]
    print(forked(RANKS, whole, Path(root), arguments), forked(RANKS, broken, Path(root), arguments))
