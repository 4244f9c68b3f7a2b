"""Kernels and memory traffic of a decoder layer and of the loss's logits, eager and compiled,
without a GPU.

    python -m tests.cuda.kernels OUT      (with the variables of ``paper.environment``)

writes OUT, JSON: [what, how, direction, kernels, bytes per token or logit] of each. Matmuls and
attention are left out. Eager kernels are counted by ``operators``; those of compiled graphs are
what Inductor plans for the GPU, each reading its inputs and writing its outputs once. Nothing is
generated or launched, and what Inductor first tries out on a device is left out: patterns of
attention, padding of matmuls, folding of constants.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._inductor import compile_fx, config
from torch._inductor.fx_passes import joint_graph, post_grad
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import NopKernelSchedulerNode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from tests.cuda.operators import Operators
from trainer.batching.flops import Shape
from trainer.engine import attention, fused_loss
from trainer.engine import loss as losses
from trainer.engine.compiled import compile_layers
from trainer.planning.workload import KNOWN

TOKENS, LOGITS_ROWS = 20_480, 4096
SIZES = ("4b", "8b")
Row = tuple[str, str, str, int, float]


class Planned(BaseException):
    """The kernels of a graph are planned: (their number, their bytes). Not an Exception, which
    Inductor would wrap.
    """


class Inductor:
    """Plans the graphs that torch compiles from here on; the graphs themselves run in the place of
    kernels.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self.found = {"forward": [0, 0], "backward": [0, 0]}
        config.compile_threads = 1
        config.fx_graph_cache = config.joint_graph_constant_folding = False
        parts: Any = (joint_graph, post_grad, GraphLowering, torch._TorchCompileInductorWrapper)
        *passes, lowering, wrapper = parts
        for each in passes:
            each.lazy_init = lambda *_: None
        lowering.compile_to_module = _plan
        wrapper.__call__ = lambda backend, model, inputs: compile_fx.compile_fx(
            model, inputs, inner_compile=self.compile, config_patches=backend.config
        )

    def compile(self, graph: Any, inputs: Any, **options: Any) -> Callable[..., Any]:
        """Counts the kernels of ``graph`` and returns what runs in their place."""
        run = copy.deepcopy(graph)
        try:
            compile_fx.compile_fx_inner(graph, inputs, **options)
        except Planned as planned:
            direction = "backward" if options.get("is_backward") else "forward"
            for i, count in enumerate(planned.args):
                self.found[direction][i] += count

        def call(arguments: list[Any]) -> Any:
            given = list(arguments)
            arguments.clear()
            with self.mode:
                return run(*given)

        call.__dict__["_boxed_call"] = True  # it empties the list of its arguments
        return call

    def take(self) -> dict[str, list[int]]:
        """Returns (kernels, bytes) by direction since the last call."""
        torch._dynamo.reset()
        found, self.found = self.found, {"forward": [0, 0], "backward": [0, 0]}
        return found


def _plan(self: Any) -> None:
    if self.scheduler is None:
        self._update_scheduler()
    nodes = [n for n in self.scheduler.nodes if not n.is_extern()]
    kernels = [n for n in nodes if not isinstance(n, NopKernelSchedulerNode)]
    # Apart, because what is overwritten in place counts twice.
    moved = sum(int(n.get_read_buffer_sizes() + n.get_write_buffer_sizes()) for n in kernels)
    raise Planned(len(kernels), moved)


def layer_of(shape: Shape, checkpointing: str) -> Qwen3DecoderLayer:
    """Returns a decoder layer in bf16 on the device, checkpointed as the engine does."""
    settings = Qwen3Config(
        num_hidden_layers=1,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    settings._attn_implementation = attention.name("varlen")
    layer = Qwen3DecoderLayer(settings, 0)
    for module in layer.modules():
        for name, weight in [(n, p) for n, p in module._parameters.items() if p is not None]:
            module._parameters[name] = torch.nn.Parameter(_fake(*weight.shape))
    if checkpointing != "none":
        options: dict[str, Any] = {"use_reentrant": False}
        if checkpointing == "selective":
            kept = attention.kernels("varlen")
            options["context_fn"] = partial(create_selective_checkpoint_contexts, kept)
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, **options)
    return layer.train()


def _fake(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda:0")


def _forward(layer: torch.nn.Module, shape: Shape) -> torch.Tensor:
    x = _fake(1, TOKENS, shape.hidden).requires_grad_()
    # What goes on from x is its gradient: the embedding or the layer before.
    angles = tuple(_fake(1, TOKENS, shape.head_dim) for _ in "cs")
    starts = _fake(4, dtype=torch.int32)
    return layer(
        x,
        position_embeddings=angles,
        cu_seq_lens_q=starts,
        cu_seq_lens_k=starts,
        max_length_q=TOKENS // 2,
        max_length_k=TOKENS // 2,
    )


def eager_layer(shape: Shape) -> dict[str, list[int]]:
    """Returns (kernels, bytes) by direction."""
    layer, found = layer_of(shape, "none"), {}
    with Operators() as counted:
        out = _forward(layer, shape)
    with Operators() as back:
        out.backward(torch.empty_like(out))
    for name, of in (("forward", counted), ("backward", back)):
        kept = [total for (kind, _), total in of.totals.items() if kind == "elementwise"]
        found[name] = [sum(t.calls for t in kept), sum(t.moved for t in kept)]
    return found


def compiled_layer(inductor: Inductor, shape: Shape, checkpointing: str) -> dict[str, list[int]]:
    """Returns (kernels, bytes) by direction; the gradients of the layer's input, summed outside,
    included.
    """
    layer = layer_of(shape, checkpointing)
    compile_layers(SimpleNamespace(model=SimpleNamespace(layers=[layer])), checkpointing != "none")
    out = _forward(layer, shape)
    out.backward(torch.empty_like(out))
    found = inductor.take()
    found["backward"][0] += 1
    found["backward"][1] += 3 * 2 * shape.hidden * TOKENS
    return found


def logits(inductor: Inductor, shape: Shape) -> Iterator[Row]:
    """Yields the kernels of a chunk's logits and the bytes per logit, both ways."""
    size = LOGITS_ROWS * shape.vocabulary
    label = _fake(LOGITS_ROWS, 1, dtype=torch.int64)
    hidden, weight = _fake(LOGITS_ROWS, shape.hidden), _fake(shape.vocabulary, shape.hidden)
    with Operators() as counted:
        losses._chunk(hidden, weight, label, 1.0, True, False)
    kept = [total for (kind, _), total in counted.totals.items() if kind == "elementwise"]
    yield "logits", "eager", "both", sum(t.calls for t in kept), sum(t.moved for t in kept) / size
    with torch.no_grad():
        fused_loss.differentiate(hidden @ weight.T, label, _fake(dtype=torch.float32))
    kernels, moved = inductor.take()["forward"]
    yield "logits", "compiled", "both", kernels, moved / size


def main(out: Path) -> None:
    """Writes the rows of all sizes."""
    attention.get_ulysses_sequence_parallel_group = lambda: None
    mode, rows = FakeTensorMode(allow_non_fake_inputs=True), list[Row]()
    inductor = Inductor(mode)
    with mode:
        for size in SIZES:
            shape = KNOWN[f"Qwen/Qwen3-{size.upper()}-Base"]
            found = {"eager": eager_layer(shape)}
            for kind in ("none", "selective"):
                found[f"compiled, {kind}"] = compiled_layer(inductor, shape, kind)
            for how, directions in found.items():
                for direction, (kernels, moved) in directions.items():
                    rows.append((size, how, direction, kernels, moved / TOKENS))
        rows += logits(inductor, KNOWN["Qwen/Qwen3-4B-Base"])
    out.write_text(json.dumps(rows))


if __name__ == "__main__":
    torch.cuda.set_device(0)
    main(Path(sys.argv[1]))
