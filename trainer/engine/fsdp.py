"""verl's FSDP2 engine with three changes: planned micro-batches, packed attention, memory-efficient
loss.

Sharding, mixed precision, optimizer, offload and the Ulysses groups are verl's. verl's own step
cuts micro-batches per rank, fails on a rank without rows, reads lengths from the device in every
layer, and materialises all logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import AutoModelForCausalLM
from verl.utils.device import get_device_id
from verl.utils.fsdp_utils import apply_fsdp2
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from trainer.batching.packing import Packed, by_document, pack
from trainer.engine import attention, load_weights
from trainer.engine import loss as losses
from trainer.engine.stopwatch import Stopwatch
from trainer.run.step_metrics import TokenMeans

BACKEND = "warmstart"

Rows = Sequence[dict[str, torch.Tensor]]


@EngineRegistry.register(model_type="language_model", backend=BACKEND, device=["cpu", "cuda"])
class Engine(FSDPEngineWithLMHead):
    """Runs planned steps; everything not overridden here is verl's."""

    def __init__(
        self,
        *args: Any,
        attention_backend: str,
        checkpointing: str,
        compile_layers: bool,
        random_weights: bool = False,
        **kwargs: Any,
    ):
        """``checkpointing`` is what a layer's backward recomputes: none, selective (all but
        attention) or full. ``random_weights`` reads the model's shape only; not with
        offloaded weights.
        """
        super().__init__(*args, **kwargs)
        self.attention_backend = attention_backend
        self.checkpointing = checkpointing
        self.compile_layers = compile_layers
        self.random_weights = random_weights
        self.stopwatch = Stopwatch()
        self.row_losses: list[torch.Tensor] = []
        """Sums and numbers of the rows' losses (``by_document``), which stay on the device, for
        each micro-batch of the last step.
        """
        self.head_tokens = 0
        """Supervised tokens of the last step on this rank."""
        self.head_seconds = 0.0
        """Time of the last step in the output head, without waiting for other ranks."""

    def train_step(self, micro_batches: Sequence[Rows], tokens: int) -> tuple[TokenMeans, float]:
        """Runs one optimizer step over this data-parallel group's micro-batches; skips it if a
        gradient is not finite.

        ``tokens`` is the number of supervised tokens in the global batch, the loss's denominator.
        Returns (this rank's shares of the means, gradient norm before clipping). The shares of all
        ranks add up to the means over ``tokens``.
        """
        # FSDP averages the gradients over all ranks; times the world size, that is their sum.
        scale = dist.get_world_size() / tokens
        total = torch.zeros(3, device=get_device_id())
        self.row_losses, self.head_tokens = [], 0
        self.optimizer_zero_grad()
        for i, rows in enumerate(micro_batches):
            with self._gradient_sync_context(is_last_micro_batch=i == len(micro_batches) - 1):
                packed = self.pack(rows)
                loss, by_token, sums = self.forward(packed, scale)
                self.row_losses.append(by_document(packed, by_token))
                self.head_tokens += len(by_token)
                del packed, by_token  # before the peak of memory
                loss.backward()
            total += sums
        # One copy, because the host waits for each.
        means = TokenMeans(*(total.cpu().double() / tokens).tolist())
        self.head_seconds = self.stopwatch.take()
        return means, self.optimizer_step()

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[Rows]) -> torch.Tensor:
        """Returns the sums (3,) of token losses, entropies and correct tokens of this rank's share
        of the micro-batches, in float64 on the host.
        """
        total = torch.zeros(3, dtype=torch.float64)
        for rows in micro_batches:
            total += self.forward(self.pack(rows))[2].cpu()
        return total

    def forward(self, packed: Packed, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
        """Returns ``losses.linear_cross_entropy`` of the supervised tokens of this rank's slice."""
        return self.module(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            supervised=packed.supervised,
            labels=packed.labels,
            scale=scale,
            **packed.attention(),
        )

    def pack(self, rows: Rows) -> Packed:
        """Returns a micro-batch on this rank's device, sliced for its rank in the sequence-parallel
        group.
        """
        degree = self.ulysses_sequence_parallel_size
        place = self.ulysses_device_mesh["sp"].get_local_rank() if degree > 1 else 0
        return pack(rows, get_device_id(), degree, place)

    def _build_module(self) -> torch.nn.Module:
        """Builds the model on the meta device; verl would load a tied model in full, in fp32, on
        every rank.

        With offloaded weights verl's path is kept, because it also pins them in host memory.
        """
        if self.engine_config.offload_policy:
            return self._prepared(super()._build_module())
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(
                self.model_config.hf_config, dtype=torch.float32
            )
        if self.model_config.use_liger:
            from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

            _apply_liger_kernel_to_instance(
                model=module, fused_linear_cross_entropy=False, swiglu=True
            )
        return self._prepared(module)

    def _prepared(self, module: torch.nn.Module) -> torch.nn.Module:
        """Returns the model with our loss, and its layers checkpointed and compiled as the settings
        say.
        """
        losses.install(module, self.stopwatch)
        if self.checkpointing != "none":
            options: dict[str, Any] = {"use_reentrant": False}
            if self.checkpointing == "selective":
                kept = attention.kernels(self.attention_backend)
                options["context_fn"] = partial(create_selective_checkpoint_contexts, kept)
            module.gradient_checkpointing_enable(options)
        if self.compile_layers:
            for layer in module.model.layers:
                layer.compile(dynamic=True)
        return module

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Shards the model as verl does and loads its weights."""
        if self.engine_config.offload_policy:
            module = super()._build_fsdp_module(module)
        else:
            types = {
                name: PrecisionType.to_dtype(t)
                for name, t in self.engine_config.mixed_precision.items()
            }
            # verl's optimizer step and forward contexts read both attributes.
            self._autocast_dtype, self.scaler = types["param_dtype"], None
            sharding = {
                "mesh": self.device_mesh,
                "mp_policy": MixedPrecisionPolicy(**types, cast_forward_inputs=True),
                "reshard_after_forward": self.engine_config.reshard_after_forward,
            }
            apply_fsdp2(module, sharding, self.engine_config)
            if self.random_weights:
                load_weights.randomise(module, get_device_id())
            else:
                load_weights.load(module, Path(self.model_config.local_path), get_device_id())
        # Backward starts with the root's weights, a tied embedding among them: resharding would
        # gather them twice.
        module.set_reshard_after_forward(False, recurse=False)
        return module
