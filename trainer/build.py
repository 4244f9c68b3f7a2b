"""The engine of a configuration: verl's settings, our attention and loss, weights loaded and sharded."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def build_engine(config: DictConfig, total_steps: int) -> Any:
    """The engine for ``config`` over the process group, ready to train ``total_steps`` steps.

    Raises ValueError for an attention backend that is not installed, or a degree of sequence parallelism that does
    not divide the model's heads.
    """
    from trainer import platform

    platform.use(config.device)
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from trainer import attention
    from trainer.engine import BACKEND

    train = config.train
    backend = attention.choose(train.attention, config.device, train.precision)
    model = _with(config.verl.model, override_config={"attn_implementation": attention.name(backend)})
    optimizer = _with(config.verl.optim, total_training_steps=total_steps)
    if train.fused_optimizer:
        optimizer = _with(optimizer, override_optimizer_config={"fused": True})
    model_config = omega_conf_to_dataclass(model)
    model_config.model_type = "language_model"
    heads = model_config.hf_config.num_attention_heads
    if heads % train.sequence_parallel:
        raise ValueError(
            f"train.sequence_parallel={train.sequence_parallel} does not divide the {heads} attention heads"
        )
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
    )
    engine.initialize()
    return engine


def _with(section: DictConfig, **values: Any) -> DictConfig:
    merged = OmegaConf.merge(section, values)
    assert isinstance(merged, DictConfig)
    return merged
