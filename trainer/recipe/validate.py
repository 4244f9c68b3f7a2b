"""Checks a recipe's values, above all their combinations; ``schema`` has the single keys."""

from __future__ import annotations

import re

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError

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

    Raises UserError naming the key, what it must be and what it is.
    """
    from trainer.recipe import schema  # pydantic is slow to import

    schema.check(OmegaConf.to_container(config))
    for key in FULL_ONLY:
        if config.train.lora_rank is not None and OmegaConf.select(config, key):
            raise UserError(
                f"{key}=true is for full-parameter training only: leave it out, or set "
                "train.lora_rank=null"
            )
    _check_together(config)


def _check_together(config: DictConfig) -> None:
    train, data = config.train, config.data
    if train.max_tokens_per_gpu * train.sequence_parallel < data.max_length:
        raise UserError(
            f"train.max_tokens_per_gpu={train.max_tokens_per_gpu} with train.sequence_parallel="
            f"{train.sequence_parallel} cannot hold a row of data.max_length={data.max_length} "
            "tokens: raise one of the first two or lower the last"
        )
    if config.device == "cpu" and (train.attention in ("flash_attn", "varlen") or train.liger):
        key = "train.liger=true" if train.liger else f"train.attention={train.attention}"
        raise UserError(f"{key} needs a GPU: leave it at its default with device=cpu")
    if config.device == "cpu" and config.eval.dtype == "nf4":
        raise UserError(
            "eval.dtype=nf4 needs a GPU: vLLM has no 4-bit kernels for a CPU; leave it at its "
            "default"
        )
    if train.precision == "fp32" and train.attention in ("flash_attn", "varlen"):
        raise UserError(
            f"train.attention={train.attention} computes only in bf16: set it to auto, or "
            "precision=bf16"
        )
    if train.profile_steps is not None:
        span(train.profile_steps)
    if data.columns is not None and not any(set(wanted) <= set(data.columns) for wanted in COLUMNS):
        ways = " or ".join(", ".join(wanted) for wanted in COLUMNS)
        raise UserError(
            f"data.columns must name {ways}; it names {', '.join(data.columns) or 'nothing'}"
        )
    if data.columns is None and data.answer_style != "boxed":
        raise UserError(
            "data.answer_style=answer_is needs data.columns: traces of the OpenR1 schema are boxed"
        )
    if data.filters == "synthetic" and not (data.columns and set(COLUMNS[0]) <= set(data.columns)):
        raise UserError(f"data.filters=synthetic needs data.columns with {', '.join(COLUMNS[0])}")
    if data.synth.examples > data.synth.seed_rows:
        raise UserError(
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
