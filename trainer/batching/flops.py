"""FLOPs of a step: the shape of a Qwen3, its parameter counts, and the FLOPs of training on rows.

Used by the balancer (cost per row), the step metrics (MFU) and the planner (step time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that determine time and memory."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    lora_rank: int = 0
    """Rank of the LoRA adapters, if only these are trained; 0 if every weight is trained."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Returns the shape of a Hugging Face config (the mapping in config.json)."""
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim")
            or config["hidden_size"] // config["num_attention_heads"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
        )

    @property
    def layer_matmul_parameters(self) -> int:
        """Number of weights in one layer's matrices: q, k, v, o, gate, up, down."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Number of weights of one layer, norms included."""
        return self.layer_matmul_parameters + 2 * self.hidden + 2 * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of one vocabulary x hidden matrix."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Number of weights of the model; a tied head counts once."""
        return (
            self.layers * self.layer_parameters
            + self.hidden
            + self.embedding_parameters * (1 if self.tied else 2)
        )

    @property
    def adapter_parameters(self) -> int:
        """Number of adapter weights: lora_rank x (inputs + outputs) per matrix of a layer (Hu et
        al. 2021).
        """
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        return self.layers * self.lora_rank * (attention + 3 * (self.hidden + self.intermediate))

    @property
    def trained_parameters(self) -> int:
        """Number of weights with optimizer moments; a checkpoint holds these."""
        return self.adapter_parameters if self.lora_rank else self.parameters

    @property
    def dense_flops(self) -> int:
        """Training FLOPs per token outside attention scores: 6 per trained weight of a matmul (2
        forward, 4 backward), 4 per frozen weight, which needs no weight gradient.

        The head is a matmul, the embedding lookup is not (Kaplan et al. 2020, section 2.1; PaLM,
        appendix B).
        """
        own = self.layers * self.layer_matmul_parameters + self.embedding_parameters
        return 4 * own + 6 * self.adapter_parameters if self.lora_rank else 6 * own

    @property
    def attention_flops(self) -> int:
        """Training FLOPs per (query, key) pair over all layers: two matmuls of head_dim per head, 3
        x forward.
        """
        return 3 * 2 * 2 * self.layers * self.heads * self.head_dim


def training_flops(shape: Shape, lengths: Any) -> np.ndarray:
    """Returns the FLOPs of forward and backward for rows of ``lengths`` tokens, as float64 of the
    same shape.

    Attention is causal: a row of n tokens has n (n + 1) / 2 pairs. Recomputation is not counted.
    """
    n = np.asarray(lengths, dtype=np.float64)
    return shape.dense_flops * n + shape.attention_flops * n * (n + 1) / 2
