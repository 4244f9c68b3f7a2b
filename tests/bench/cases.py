"""What ``bench_gpu`` compares: ours, the other trainers that are installed, and ours with one setting changed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from omegaconf import DictConfig

from trainer import config as configs
from trainer.planning.plan import CHECKPOINTING

RECIPE = "sft_4b"
FLASH_ATTN, LIGER, TRL = (
    importlib.util.find_spec(package) is not None for package in ("flash_attn", "liger_kernel", "trl")
)


@dataclass(frozen=True)
class Case:
    """One process."""

    name: str
    label: str
    program: tuple[str, ...]
    """Module and first arguments; the configuration and the file of steps follow."""
    overrides: tuple[str, ...] = ()
    """Of our configuration."""
    arguments: tuple[str, ...] = ()
    """Last ones."""

    @property
    def is_peer(self) -> bool:
        """Another trainer than ours."""
        return self.program != OURS.program


OURS = Case("ours", "ours", ("tests.bench.contenders", "ours"))


@cache
def recipe() -> DictConfig:
    """The 4B recipe's section ``train``."""
    return configs.load(RECIPE).train


def peers() -> Iterator[Case]:
    """Other trainers that are installed, at their best settings."""
    attention = "flash_attention_2" if FLASH_ATTN else "sdpa"
    stock = [f"model.override_config.attn_implementation={attention}", "model.enable_gradient_checkpointing=true"]
    fused = ["model.use_fused_kernels=true"]
    if LIGER:
        stock.append("model.use_liger=true")
        fused.append("model.fused_kernel_options.impl_backend=liger")
    crippled = "" if FLASH_ATTN else ", crippled: no flash-attn"
    verl = ("tests.stock_verl",)
    yield Case("verl", f"stock verl ({attention}{crippled})", verl, arguments=tuple(stock))
    yield Case("verl-fused", f"stock verl ({attention}, fused loss{crippled})", verl, arguments=(*stock, *fused))
    if TRL:
        label = f"TRL ({attention}, {'Liger' if LIGER else 'no Liger'})"
        yield Case("trl", label, ("tests.bench.contenders", "trl"))


def knobs() -> Iterator[Case]:
    """Ours with one setting other than the recipe's, where it can run."""
    switches = ["prefetch", "compile", "fused_optimizer", *(["liger"] if LIGER else [])]
    changes = [f"{key}={str(not recipe()[key]).lower()}" for key in switches]
    changes += [f"checkpointing={kind}" for kind in CHECKPOINTING if kind != recipe().checkpointing]
    # Without flash-attn varlen is what the recipe takes.
    changes += ["attention=varlen", "attention=sdpa"] if FLASH_ATTN else ["attention=sdpa"]
    for change in changes:
        yield replace(OURS, name=change, label=f"ours, {change}", overrides=(f"train.{change}",))
