"""Builds the engine of a configuration: verl's settings, our attention and loss, weights loaded and
sharded.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from trainer.run.trained_from import model_folder

if TYPE_CHECKING:
    from trainer.engine.fsdp import Engine

NOT_SET = -1
"""verl's value of ``lr_warmup_steps`` for "compute it from the warmup ratio"."""


def build_engine(config: DictConfig, total_steps: int, random_weights: bool = False) -> Engine:
    """Returns the engine for ``config`` over the process group, ready to train ``total_steps``
    steps. With ``random_weights``, the model's folder needs only a config.json.

    Raises UserError when the model cannot be trained with these settings, or a package is not
    installed.
    """
    from trainer.process import cpu_platform

    cpu_platform.use(config.device)
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from trainer.engine import attention, determinism

    train = config.train
    determinism.choose(train.deterministic)
    if train.lora_rank:
        from trainer.engine.qlora import BACKEND
    else:
        from trainer.engine.fsdp import BACKEND
    backend = attention.choose(train.attention, config.device, train.precision)
    model = _with(
        config.verl.model,
        # A local folder, because verl would fetch the hub's newest revision.
        path=str(model_folder(config.model.path, config.model.revision)),
        override_config={"attn_implementation": attention.name(backend)},
        lora_rank=train.lora_rank or 0,
        lora_alpha=train.lora_alpha,
    )
    optimizer = _with(
        config.verl.optim,
        total_training_steps=total_steps,
        lr_warmup_steps=train.warmup_steps or NOT_SET,
    )
    if train.fused_optimizer:
        optimizer = _with(optimizer, override_optimizer_config={"fused": True})
    model_config = omega_conf_to_dataclass(model)
    model_config.model_type = "language_model"
    _check_model(config, model_config.hf_config)
    attention.check_dropout(backend, model_config.hf_config.attention_dropout)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=BACKEND,
        model_config=model_config,
        engine_config=omega_conf_to_dataclass(config.verl.engine),
        optimizer_config=omega_conf_to_dataclass(optimizer),
        checkpoint_config=omega_conf_to_dataclass(config.verl.checkpoint),
        attention_backend=backend,
        checkpointing=train.checkpointing,
        compile_layers=train.compile,
        random_weights=random_weights,
    )
    engine.initialize()
    return engine


def _check_model(config: DictConfig, model: Any) -> None:
    """Raises UserError for a model that the packed forward would compute incorrectly, and when
    liger-kernel is missing.
    """
    if model.model_type != "qwen3" or model.use_sliding_window:
        raise UserError(
            f"model.path={config.model.path} is a {model.model_type} model: only Qwen3 models "
            "with full attention are supported"
        )
    degree, heads, kv_heads = (
        config.train.sequence_parallel,
        model.num_attention_heads,
        model.num_key_value_heads,
    )
    if heads % degree or (kv_heads % degree and degree % kv_heads):
        raise UserError(
            f"train.sequence_parallel={degree} cannot split {heads} attention heads and "
            f"{kv_heads} key-value heads"
        )
    if config.train.liger and importlib.util.find_spec("liger_kernel") is None:
        raise UserError("liger-kernel is not installed: make setup-gpu, or set train.liger=false")


def _with(section: DictConfig, **values: Any) -> DictConfig:
    merged = OmegaConf.merge(section, values)
    assert isinstance(merged, DictConfig)
    return merged
