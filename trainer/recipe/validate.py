"""Checks a recipe's values, mainly their combinations; ``schema`` checks single keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError, faults_of, refuse

FULL_ONLY = (
    "train.prefetch",
    "train.compile",
    "train.fused_optimizer",
    "train.liger",
    "verl.engine.offload_policy",
)
"""Switches that QLoRA training does not support."""
COLUMNS = (("problem", "solution", "answer"), ("messages",))
"""Column sets; ``data.columns`` must name all columns of one of them."""


def check_values(config: DictConfig) -> None:
    """Checks a resolved configuration: each value by itself, then their combinations.

    Raises UserError naming each key, what it must be and what it is.
    """
    from trainer.recipe import schema  # pydantic is slow to import

    refuse(schema.faults(OmegaConf.to_container(config)))
    refuse(list(_faults_together(config)))


def _faults_together(config: DictConfig) -> Iterator[str]:
    train, data = config.train, config.data
    for key in FULL_ONLY:
        if train.lora_rank is not None and OmegaConf.select(config, key):
            yield (
                f"{key}=true is for full-parameter training only: set it to false, or "
                "train.lora_rank=null"
            )
    if train.max_tokens_per_gpu * train.sequence_parallel < data.max_length:
        yield (
            f"train.max_tokens_per_gpu={train.max_tokens_per_gpu} with train.sequence_parallel="
            f"{train.sequence_parallel} cannot hold a row of data.max_length={data.max_length} "
            "tokens: raise one of the first two or lower the last"
        )
    if config.device == "cpu" and (train.attention in ("flash_attn", "varlen") or train.liger):
        key = "train.liger=true" if train.liger else f"train.attention={train.attention}"
        yield (f"{key} needs a GPU: leave it at its default with device=cpu")
    if config.device == "cpu" and config.eval.dtype == "nf4":
        yield (
            "eval.dtype=nf4 needs a GPU: vLLM has no 4-bit kernels for a CPU; leave it at its "
            "default"
        )
    if train.precision == "fp32" and train.attention in ("flash_attn", "varlen"):
        yield (
            f"train.attention={train.attention} computes only in bf16: set it to auto, or "
            "precision=bf16"
        )
    if train.profile_steps is not None:
        yield from faults_of([partial(span, train.profile_steps)])
    if data.columns is not None and not any(set(wanted) <= set(data.columns) for wanted in COLUMNS):
        ways = " or ".join(", ".join(wanted) for wanted in COLUMNS)
        yield (f"data.columns must name {ways}; it names {', '.join(data.columns) or 'nothing'}")
    if data.columns is None and data.answer_style != "boxed":
        yield (
            "data.answer_style=answer_is needs data.columns: traces of the OpenR1 schema are boxed"
        )
    if data.filters == "synthetic" and not (data.columns and set(COLUMNS[0]) <= set(data.columns)):
        yield (f"data.filters=synthetic needs data.columns with {', '.join(COLUMNS[0])}")
    if data.synth.examples > data.synth.seed_rows:
        yield (
            f"data.synth.examples={data.synth.examples} seeds in a prompt cannot be more than "
            f"data.synth.seed_rows={data.synth.seed_rows}"
        )


def span(steps: str) -> tuple[int, int]:
    """Returns (first, last) step of ``train.profile_steps``. Raises UserError when it is not A:B
    with 1 <= A <= B.
    """
    match = re.fullmatch(r"(\d+):(\d+)", steps)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(
            f"train.profile_steps must be A:B, the first and the last step to trace, not {steps!r}"
        )
    return int(match[1]), int(match[2])
