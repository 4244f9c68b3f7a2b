"""Checks a recipe's values: types, ranges, choices, and combinations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError
from trainer.planning.hardware import GPUS

CHOICES = {
    "device": ("cuda", "cpu"),
    "model.tokenizer": ("model", "qwen3", "trained"),
    "data.clean": (None, "gsm8k"),
    "data.trace_choice": ("first", "shortest", "longest", "random"),
    "data.engine": ("local", "ray"),
    "data.answer_style": ("boxed", "answer_is"),
    "data.filters": ("standard", "synthetic"),
    "data.synth.backend": ("anthropic", "local"),
    "train.precision": ("bf16", "fp32"),
    "train.attention": ("auto", "flash_attn", "varlen", "sdpa"),
    "train.checkpointing": ("none", "selective", "full"),
    "cluster.gpu": tuple(GPUS),
    "eval.dtype": ("auto", "float32", "bfloat16", "nf4"),
    "verl.engine.strategy": ("fsdp2",),
}
POSITIVE, NOT_NEGATIVE, SHARE = (1e-12, math.inf), (0, math.inf), (0, 1)
RANGES = {
    "data.arithmetic.problems": POSITIVE,
    "data.arithmetic.digits": POSITIVE,
    "data.max_chars": POSITIVE,
    "data.max_length": POSITIVE,
    "data.train_rows": POSITIVE,
    "data.test_rows": NOT_NEGATIVE,
    "data.max_bad_records": NOT_NEGATIVE,
    "data.min_think_tokens": NOT_NEGATIVE,
    "data.processes": POSITIVE,
    **dict.fromkeys(
        [
            f"data.synth.{key}"
            for key in ("seed_rows", "examples", "problems", "per_request", "max_tokens", "max_usd")
        ],
        POSITIVE,
    ),
    **dict.fromkeys(
        [
            f"data.synth.{key}"
            for key in ("temperature", "usd_per_million_input", "usd_per_million_output")
        ],
        NOT_NEGATIVE,
    ),
    "data.seed": NOT_NEGATIVE,
    "model.init_seed": NOT_NEGATIVE,
    "model.context": POSITIVE,
    "train.epochs": POSITIVE,
    "train.batch_size": POSITIVE,
    "train.max_steps": POSITIVE,
    "train.lr": POSITIVE,
    "train.warmup_ratio": SHARE,
    "train.min_lr_ratio": SHARE,
    "train.weight_decay": NOT_NEGATIVE,
    "train.warmup_steps": POSITIVE,
    "train.lora_rank": POSITIVE,
    "train.lora_alpha": POSITIVE,
    "train.clip_grad": POSITIVE,
    "train.seed": NOT_NEGATIVE,
    "train.max_tokens_per_gpu": POSITIVE,
    "train.ranks": POSITIVE,
    "train.sequence_parallel": POSITIVE,
    "train.validate_every": POSITIVE,
    "train.save_every": POSITIVE,
    "train.keep_last": POSITIVE,
    "train.keep_every": POSITIVE,
    "train.keep_best": NOT_NEGATIVE,
    "train.hang_minutes": POSITIVE,
    "eval.limit": POSITIVE,
    "eval.rollouts": POSITIVE,
    "eval.temperature": NOT_NEGATIVE,
    "eval.top_p": (1e-12, 1),
    "eval.max_tokens": POSITIVE,
    "eval.engines": POSITIVE,
    "eval.tensor_parallel": POSITIVE,
    "eval.concurrency": POSITIVE,
    "cluster.nodes": POSITIVE,
    "cluster.gpus_per_node": POSITIVE,
    "cluster.network_gbits": POSITIVE,
    "cluster.gpu_memory_gib": POSITIVE,
    "cluster.gpu_peak_tflops": POSITIVE,
}
OPTIONAL_TYPES = {
    **dict.fromkeys(("data.train_rows", "data.processes", "eval.limit", "model.context"), 1),
    **dict.fromkeys(("eval.rollouts", "eval.engines"), 1),
    "eval.temperature": 0.6,
    **dict.fromkeys(
        ("data.synth.max_usd", "cluster.gpu_memory_gib", "cluster.gpu_peak_tflops"), 1.0
    ),
    **dict.fromkeys(
        ("train.max_steps", "train.validate_every", "train.save_every", "train.keep_every"), 1
    ),
    **dict.fromkeys(("train.warmup_steps", "train.lora_rank"), 1),
    "train.profile_steps": "2:3",
    "data.question_types": [],
    "model.init": {},
}
"""Keys that may be null, each with an example of another value."""
TEXTS = (
    "name",
    "model.path",
    "data.name",
    "data.dir",
    "data.source",
    "run.name",
    "run.root",
    "eval.benchmarks",
    "data.synth.seeds",
    "data.synth.model",
)
FULL_ONLY = (
    "train.prefetch",
    "train.compile",
    "train.fused_optimizer",
    "train.liger",
    "verl.engine.offload_policy",
)
"""Switches that QLoRA training does not support."""
LOGGERS = ("tensorboard", "wandb")
COLUMNS = (("problem", "solution", "answer"), ("messages",))
"""Column sets; ``data.columns`` must name all columns of one of them."""


def check_values(
    config: DictConfig, values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Checks a resolved configuration; ``values`` and ``defaults`` are its and base.yaml's leaves
    by dotted key.

    A value must have its default's type. Raises UserError naming the key, what it must be and what
    it is.
    """
    examples = dict(defaults) | OPTIONAL_TYPES | dict.fromkeys(TEXTS, "")
    for key, example in examples.items():
        value = values.get(key)
        own = not key.startswith("verl.") and example is not None
        if own and not _is_like(value, example) and not (value is None and key in OPTIONAL_TYPES):
            raise UserError(f"{key} must be {_name(example)}, not {value!r}")
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UserError(
                f"{key} must be one of {', '.join(map(str, choices))}, not {values[key]!r}"
            )
    for key, (low, high) in RANGES.items():
        if values[key] is not None and not low <= values[key] <= high:
            wanted = {POSITIVE: "positive", NOT_NEGATIVE: "at least 0", SHARE: "between 0 and 1"}
            raise UserError(
                f"{key} must be {wanted.get((low, high), f'at most {high} and positive')}, not "
                f"{values[key]!r}"
            )
    for key in FULL_ONLY:
        if values["train.lora_rank"] is not None and values[key]:
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
    if unknown := [str(name) for name in train.loggers if name not in LOGGERS]:
        raise UserError(f"train.loggers knows {', '.join(LOGGERS)}, not {', '.join(unknown)}")
    if len(train.betas) != 2 or not all(
        isinstance(b, int | float) and 0 <= b < 1 for b in train.betas
    ):
        raise UserError(f"train.betas must be two numbers in [0, 1), not {list(train.betas)}")
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


def _is_like(value: Any, example: Any) -> bool:
    kinds = (int, float) if isinstance(example, float) else type(example)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(example, bool)


def _name(example: Any) -> str:
    names = {
        int: "an integer",
        float: "a number",
        str: "text",
        bool: "true or false",
        list: "a list",
        dict: "a mapping",
    }
    return names[type(example)]
