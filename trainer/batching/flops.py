"""What a step costs in arithmetic: the shape of a Qwen3, its parameters, and the FLOPs of training on rows.

Used by the balancer (which row is how heavy), the meters (MFU) and the planner (step time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that cost time and memory."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    lora_rank: int = 0
    """Of the adapters that alone are trained; 0 where every weight is."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a Hugging Face config (the mapping in config.json)."""
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
        )

    @property
    def layer_matmul_parameters(self) -> int:
        """Weights of one layer's matrices: q, k, v, o, gate, up, down."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """All weights of one layer, norms included."""
        return self.layer_matmul_parameters + 2 * self.hidden + 2 * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        """One vocabulary x hidden matrix."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights; a tied head counts once."""
        return self.layers * self.layer_parameters + self.hidden + self.embedding_parameters * (1 if self.tied else 2)

    @property
    def adapter_parameters(self) -> int:
        """Weights of the adapters: lora_rank x (inputs + outputs) for each of a layer's matrices (Hu et al. 2021)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        return self.layers * self.lora_rank * (attention + 3 * (self.hidden + self.intermediate))

    @property
    def trained_parameters(self) -> int:
        """The weights that an optimizer has moments of and a checkpoint holds."""
        return self.adapter_parameters if self.lora_rank else self.parameters

    @property
    def dense_flops(self) -> int:
        """Training FLOPs of one token outside attention scores: 6 a trained weight of a matmul (2 forward, 4 backward),
        4 a frozen one, which has no gradient of its own.

        The head is a matmul, the embedding lookup is not (Kaplan et al. 2020, section 2.1; PaLM, appendix B).
        """
        own = self.layers * self.layer_matmul_parameters + self.embedding_parameters
        return 4 * own + 6 * self.adapter_parameters if self.lora_rank else 6 * own

    @property
    def attention_flops(self) -> int:
        """Training FLOPs of one (query, key) pair over all layers: two matmuls of head_dim a head, 3 x forward."""
        return 3 * 2 * 2 * self.layers * self.heads * self.head_dim


def training_flops(shape: Shape, lengths: Any) -> np.ndarray:
    """FLOPs of forward and backward for rows of ``lengths`` tokens, float64 of the same shape.

    Causal: a row of n tokens has n (n + 1) / 2 pairs. Recomputation is not counted.
    """
    n = np.asarray(lengths, dtype=np.float64)
    return shape.dense_flops * n + shape.attention_flops * n * (n + 1) / 2
