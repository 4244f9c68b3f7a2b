"""Lists the cases of a check in order of worth, with their needs and the time that each takes on an
H200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TRAINING, SAVING, PEERS = "tests.gpu.training", "tests.gpu.saving", "tests.gpu.peers"
KERNELS, GENERATION = "tests.gpu.kernels", "tests.gpu.generation"
MODEL = ("model",)


@dataclass(frozen=True)
class Case:
    """One process."""

    name: str
    about: str
    function: str
    """``module:function``, called with a bench and this case."""
    seconds: int
    """Expected on an H200; a case is not started with less time left."""
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""
    after: tuple[str, ...] = ()
    """Cases without whose success it is skipped."""
    unless: str | None = None
    """A case whose success makes this one needless in a short check."""
    load: str = "full"
    overrides: tuple[str, ...] = ()
    """Settings of the recipe, as ``key=value``."""
    arguments: tuple[str, ...] = ()
    """Settings of the peer."""
    gpu: bool = False
    """Left out of a rehearsal."""
    long: bool = False
    """Left out of a short check."""


def knob(
    name: str, about: str, seconds: int, *settings: str, needs: tuple[str, ...] = (), **others: Any
) -> Case:
    """Ours with settings other than the recipe's."""
    overrides = tuple(f"train.{setting}" for setting in settings)
    return Case(
        name, about, f"{TRAINING}:steps", seconds, needs, MODEL, overrides=overrides, **others
    )


CASES = (
    Case("device", "memory, and NCCL's collectives on one rank", f"{KERNELS}:device", 10),
    Case(
        "attention",
        "packed attention with grouped heads against fp32 SDPA",
        f"{KERNELS}:attention",
        14,
    ),
    Case(
        "loss",
        "the chunked loss and its entropy in bf16 against fp32 logits",
        f"{KERNELS}:loss",
        25,
    ),
    Case(
        "model", "the random model and the rows that all others share", "tests.gpu.model:write", 20
    ),
    knob("ours", "the 4B recipe on one rank", 55),
    Case(
        "save",
        "steps while a checkpoint is written",
        f"{SAVING}:save",
        42,
        after=MODEL,
        load="saved",
    ),
    Case(
        "resume",
        "the steps after a checkpoint, again in a new process",
        f"{SAVING}:resume",
        27,
        after=("save",),
        load="saved",
    ),
    Case(
        "deterministic",
        "the steps after a checkpoint twice, bit for bit",
        f"{SAVING}:deterministic",
        33,
        after=("save",),
        load="saved",
        overrides=("train.deterministic=true",),
    ),
    knob("eager", "layers and loss not compiled", 30, "compile=false"),
    knob(
        "liger",
        "Liger's norms, rotary embedding and SwiGLU instead of compiled layers",
        32,
        "compile=false",
        "liger=true",
        needs=("liger_kernel",),
        gpu=True,
    ),
    Case(
        "qlora",
        "QLoRA at the card's settings: steps, a save, the same steps again",
        f"{SAVING}:adapters",
        30,
        after=MODEL,
        load="adapters",
    ),
    Case(
        "verl-fused",
        "stock verl with its fused loss",
        f"{PEERS}:verl",
        35,
        after=MODEL,
        arguments=("fused",),
    ),
    Case("verl", "stock verl", f"{PEERS}:verl", 40, after=MODEL, unless="verl-fused"),
    Case("trl", "TRL's SFTTrainer", f"{PEERS}:trl", 32, ("trl",), MODEL),
    Case(
        "trl-qlora", "TRL's SFTTrainer, QLoRA", f"{PEERS}:trl", 32, ("trl",), MODEL, load="adapters"
    ),
    Case(
        "turns",
        "late rollouts take turns in a full cache",
        f"{GENERATION}:turns",
        65,
        ("vllm",),
        MODEL,
    ),
    Case(
        "nf4",
        "generation from weights in 4 bits",
        f"{GENERATION}:nf4",
        60,
        ("vllm",),
        MODEL,
        gpu=True,
    ),
    knob("checkpointing=none", "nothing computed again", 60, "checkpointing=none", long=True),
    knob("checkpointing=full", "whole layers computed again", 60, "checkpointing=full", long=True),
    knob("prefetch", "the next layer's weights gathered early", 60, "prefetch=true", long=True),
    knob(
        "fused_optimizer=false", "AdamW in several kernels", 60, "fused_optimizer=false", long=True
    ),
    knob(
        "varlen",
        "torch's attention beside flash-attn's",
        60,
        "attention=varlen",
        needs=("flash_attn",),
        long=True,
    ),
    knob("sdpa", "a call of SDPA per document", 60, "attention=sdpa", long=True),
    Case(
        "qlora-long-rows",
        "QLoRA on rows of 4,096 tokens",
        f"{SAVING}:adapters",
        120,
        after=MODEL,
        load="long rows",
        long=True,
    ),
    Case(
        "trl-qlora-long-rows",
        "TRL's QLoRA on rows of 4,096 tokens",
        f"{PEERS}:trl",
        200,
        ("trl",),
        MODEL,
        load="long rows",
        long=True,
    ),
)
NAMES = tuple(case.name for case in CASES)


def chosen(names: list[str], *, short: bool) -> list[Case]:
    """The named cases and those that they need, in order; all of a short or a long check where none
    is named.

    Raises ValueError for an unknown name.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise ValueError(f"no case {', '.join(unknown)}: there are {', '.join(NAMES)}")
    wanted = set(names) or {case.name for case in CASES if not (short and case.long)}
    for case in reversed(CASES):
        if case.name in wanted:
            wanted |= set(case.after)
    return [case for case in CASES if case.name in wanted]
