"""Trains two steps of two layers as one rank of a Slurm step, with the recipe's own settings.

    srun ... python -m trainer.rehearsal.rehearse RECIPE [key=value ...]

Width, vocabulary, sharding, packing and the activations of a layer are the recipe's; the memory of
all layers is not. Weights and rows are random. Of the run's files, only the base model of
``model.init`` is written. The exit code is 0, or 1 after the line of a ``Failure``.
"""

from __future__ import annotations

import faulthandler
import math
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from common.errors import StageFailed
from common.exit_codes import FAILED
from trainer.doctor.findings import this_node
from trainer.process import process_group
from trainer.process.gpu_binding import check_device
from trainer.recipe import load as configs
from trainer.rehearsal.failure import Failure, one_line
from trainer.rehearsal.knobs import SECONDS
from trainer.run import base_model
from trainer.run.frozen_config import choose
from trainer.run.trained_from import model_folder

if TYPE_CHECKING:
    from trainer.engine.fsdp import Engine, Rows

LAYERS, STEPS, MICRO_BATCHES = 2, 2, 2
NEAR = 0.25
"""Share of ln(vocabulary) by which the loss of random weights may differ from it. For 4,096 wide
weights of standard deviation 0.02 the logits have variance 1.6, which adds 0.8 to 11.9.
"""
STACKS_AT = 0.6
"""Share of the allowed time after which a hanging rehearsal prints its stacks."""


def rehearse(config: DictConfig, rendezvous: str = "env://") -> list[float]:
    """Returns the losses of the steps. Collective over the ranks.

    Raises StageFailed when a loss or a gradient is implausible for random weights, UserError when
    the model cannot be trained with these settings, and the exceptions of kernels.
    """
    import torch.distributed as dist

    check_device(config.device)
    rank = process_group.join(config.device, rendezvous, timedelta(seconds=SECONDS))
    if rank == 0:
        base_model.materialise(config)
    dist.barrier()
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(config, Path(folder))
    losses = []
    for step in range(STEPS):
        loss, norm = _train(engine, config, step)
        if rank == 0:
            print(f"step {step + 1}  loss {loss:.3f}  gradient norm {norm:.3g}", flush=True)
        _check(step, loss, norm, engine.module.config.vocab_size)
        losses.append(loss)
    dist.barrier()
    dist.destroy_process_group()
    return losses


def _engine(config: DictConfig, folder: Path) -> Engine:
    """Returns the engine of the recipe's model with fewer layers; ``folder`` takes its config."""
    from transformers import AutoConfig

    from trainer.engine.build import build_engine

    place = model_folder(config.model.path, config.model.revision)
    model = AutoConfig.from_pretrained(place, trust_remote_code=False)
    model.num_hidden_layers = LAYERS
    model.layer_types = model.layer_types[:LAYERS]
    model.save_pretrained(folder)
    small = OmegaConf.merge(config, {"model": {"path": str(folder), "revision": None}})
    assert isinstance(small, DictConfig)
    return build_engine(small, STEPS, random_weights=True)


def _train(engine: Engine, config: DictConfig, step: int) -> tuple[float, float]:
    """Runs one step; returns (mean loss over the global batch, gradient norm)."""
    budget = config.train.max_tokens_per_gpu * config.train.sequence_parallel
    draw = random.Random(step)  # the same on every rank
    plan = [
        [document_lengths(budget, config.data.max_length, draw) for _ in range(MICRO_BATCHES)]
        for _ in range(engine.get_data_parallel_size())
    ]
    tokens = sum(n - prompt_length(n) for group in plan for micro in group for n in micro)
    mine = plan[engine.get_data_parallel_rank()]
    batches = [engine.pack(_rows(lengths, engine.module.config.vocab_size)) for lengths in mine]
    with engine.train_mode():
        figures = engine.train_step(batches, tokens).read()
    engine.lr_scheduler_step()
    return sum(process_group.everyone(figures.means.loss)), figures.grad_norm


def document_lengths(tokens: int, longest: int, draw: random.Random) -> list[int]:
    """Returns lengths of at least two documents, none longer than ``longest``, that fill a
    micro-batch of ``tokens``.
    """
    longest = min(longest, tokens // 2)
    lengths = []
    while tokens:
        lengths.append(min(tokens, draw.randint(max(1, longest // 8), longest)))
        tokens -= lengths[-1]
    return lengths


def prompt_length(tokens: int) -> int:
    """Returns how many tokens of a document carry no loss: a quarter, and at least the first."""
    return max(1, tokens // 4)


def _rows(lengths: Sequence[int], vocabulary: int) -> Rows:
    import torch

    rows = []
    for length in lengths:
        mask = torch.ones(length, dtype=torch.int64)
        mask[: prompt_length(length)] = 0
        rows.append({"input_ids": torch.randint(vocabulary, (length,)), "loss_mask": mask})
    return rows


def _check(step: int, loss: float, norm: float, vocabulary: int) -> None:
    expected = math.log(vocabulary)
    if not math.isfinite(norm):
        raise StageFailed(f"step {step + 1}: the gradient norm is {norm}, the loss {loss:.3f}")
    if not abs(loss - expected) < NEAR * expected:
        raise StageFailed(
            f"step {step + 1}: the loss is {loss:.3f}; random weights give about {expected:.2f}, "
            f"the logarithm of {vocabulary:,} tokens"
        )


def _tell(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    failure = Failure.of(os.environ["SLURM_PROCID"], this_node(), one_line(error))
    # Inductor leaves sys.stderr redirected when it fails.
    traceback.print_exception(kind, error, where, file=sys.__stderr__)
    print(failure.line, file=sys.__stdout__, flush=True)
    os._exit(FAILED)  # an ordinary exit may wait for the other ranks


def main() -> None:
    """Entry point of one rank."""
    sys.excepthook = _tell
    # faulthandler's own timer does not stop the other threads, and may crash a rank that runs.
    stacks = Timer(STACKS_AT * SECONDS, faulthandler.dump_traceback, [sys.__stderr__])
    stacks.daemon = True
    stacks.start()
    recipe, *overrides = sys.argv[1:]
    config = choose(partial(configs.load, recipe), overrides)[1]
    os.environ.update(process_group.slurm_environment(os.environ))
    rehearse(config)


if __name__ == "__main__":
    main()
