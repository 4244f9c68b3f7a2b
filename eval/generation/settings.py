"""The settings of a generation: the model, the sampling of its rollouts, and the engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from trainer.planning.rl_time import LEAST_REQUESTS, MOST_REQUESTS


@dataclass(frozen=True)
class Model:
    """A model that vLLM can load, and its tokenizer's folder."""

    path: str
    """A folder or a hub name."""
    tokenizer: Path
    dtype: str
    """One of vLLM's, or ``nf4`` for weights that are quantized to 4 bits while they are loaded."""
    revision: str | None = None
    """On the hub."""
    context: int | None = None
    """In tokens; overrides the model's max_position_embeddings."""


@dataclass(frozen=True)
class SamplingSettings:
    """The rollouts of each problem."""

    rollouts: int
    """Rollouts per problem."""
    temperature: float
    """0 is greedy."""
    top_p: float
    max_tokens: int
    """Budget of a rollout, in tokens."""
    seed: int


@dataclass(frozen=True)
class EngineSettings:
    """The number and size of the engines, which determine how fast rollouts are generated."""

    device: str
    """cuda or cpu."""
    count: int | None
    """Number of engines; None starts as many as fit."""
    tensor_parallel: int
    """GPUs per engine."""
    concurrency: int | None
    """Maximum number of requests per engine at a time; None: as many as its KV cache holds."""

    @property
    def at_least(self) -> int:
        """Minimum number of request slots of an engine, however small its KV cache is."""
        return LEAST_REQUESTS if self.concurrency is None else self.concurrency

    @property
    def at_most(self) -> int:
        """Maximum number of request slots of an engine (vLLM's ``max_num_seqs``)."""
        if self.concurrency is None:
            return LEAST_REQUESTS if self.device == "cpu" else MOST_REQUESTS
        return self.concurrency

    @staticmethod
    def from_config(config: DictConfig) -> EngineSettings:
        """Returns the settings of a recipe."""
        values = config.eval
        return EngineSettings(
            config.device, values.engines, values.tensor_parallel, values.concurrency
        )
