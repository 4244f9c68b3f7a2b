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
from verl.utils.device import get_device_id, get_device_name
from verl.utils.fsdp_utils import apply_fsdp2, fsdp2_clip_grad_norm_
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from trainer.batching.packing import Packed, by_document, pack
from trainer.engine import attention, load_weights
from trainer.engine import loss as losses
from trainer.engine.compiled import compile_layers
from trainer.engine.pending import HostCopy, PendingStep
from trainer.engine.stopwatch import Stopwatch, Timestamp

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

    @property
    def skips_on_device(self) -> bool:
        """Whether the optimizer's own kernel skips the update of a step whose gradient is not
        finite, so that the host need not read it. torch's fused AdamW does.
        """
        fused = bool(self.optimizer.defaults.get("fused"))
        return fused and not self.engine_config.offload_policy

    def train_step(self, micro_batches: Sequence[Packed], tokens: int) -> PendingStep:
        """Launches one optimizer step over this data-parallel group's micro-batches, which are on
        the host; a gradient that is not finite makes no update.

        ``tokens`` is the number of supervised tokens in the global batch, the loss's denominator.
        Where ``skips_on_device``, the host does not wait for the device.
        """
        # FSDP averages the gradients over all ranks; times the world size, that is their sum.
        scale = dist.get_world_size() / tokens
        total = torch.zeros(3, device=get_device_id())
        row_losses, head_tokens = [], 0
        self.optimizer_zero_grad()
        for i, on_host in enumerate(micro_batches):
            with self._gradient_sync_context(is_last_micro_batch=i == len(micro_batches) - 1):
                packed = on_host.to(get_device_id())
                loss, by_token, sums = self.forward(packed, scale)
                row_losses.append(by_document(packed, by_token))
                head_tokens += len(by_token)
                del packed, by_token  # before the peak of memory
                loss.backward()
            total += sums
        norm = self.optimizer_step()
        return PendingStep(
            sums=HostCopy(total),
            norm=norm if isinstance(norm, float) else HostCopy(norm),
            tokens=tokens,
            head_tokens=head_tokens,
            row_losses=row_losses,
            laps=self.stopwatch.take(),
            end=Timestamp(),
        )

    def optimizer_step(self) -> float | torch.Tensor:
        """Clips the gradients and updates the weights if they are finite; returns their norm before
        clipping, where ``skips_on_device`` as a scalar on the device.
        """
        if not self.skips_on_device:
            return float(super().optimizer_step())
        limit = self.optimizer_config.clip_grad
        norm: torch.Tensor = fsdp2_clip_grad_norm_(self.module.parameters(), limit).full_tensor()
        # How torch's GradScaler tells a fused optimizer to leave everything as it is.
        self.optimizer.found_inf = (~norm.isfinite()).float()
        self.optimizer.step()
        del self.optimizer.found_inf
        return norm

    @torch.no_grad()
    def evaluate(self, packed: Packed) -> HostCopy:
        """Launches a validation of one micro-batch, which is on the host; returns the sums (3,) of
        token losses, entropies and correct tokens of this rank's share, in float32.
        """
        return HostCopy(self.forward(packed.to(get_device_id()))[2])

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
        """Returns a micro-batch on the host, sliced for this rank in the sequence-parallel group;
        for a GPU in pinned memory. It draws no random numbers: another thread may call it.
        """
        degree = self.ulysses_sequence_parallel_size
        place = self.ulysses_device_mesh["sp"].get_local_rank() if degree > 1 else 0
        packed = pack(rows, degree, place)
        return packed.pinned() if get_device_name() == "cuda" else packed

    def _build_module(self) -> torch.nn.Module:
        """Builds the model on the meta device; verl would load a tied model in full, in fp32, on
        every rank.

        With offloaded weights verl's path is kept, because it also pins them in host memory.
        """
        if self.engine_config.offload_policy:
            return self._prepared(super()._build_module())
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(
                self.model_config.hf_config, dtype=torch.float32, trust_remote_code=False
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
        losses.install(module, self.stopwatch, self.compile_layers)
        if self.checkpointing != "none":
            options: dict[str, Any] = {"use_reentrant": False}
            if self.checkpointing == "selective":
                kept = attention.kernels(self.attention_backend)
                options["context_fn"] = partial(create_selective_checkpoint_contexts, kept)
            module.gradient_checkpointing_enable(options)
        if self.compile_layers:
            compile_layers(module, self.checkpointing != "none")
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
