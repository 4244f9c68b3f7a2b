"""The device itself, and our two kernels against plain float32 ones.

    python -m tests.gpu.kernels

prints the first CUDA device and the versions around it as JSON, null without one.
"""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import torch

from tests.gpu.bench import Bench
from trainer.process import gpu_binding, process_group

FORWARD, BACKWARD = 1e-2, 2e-2
"""Relative error ‖ours - reference‖ / ‖reference‖: bf16's eight bits round operands and results by
4e-3 at most.
"""
SHARES = (0.5, 0.0, 0.25, 0.04, 0.21)
"""Documents of a packed row, of its tokens; none is one token."""
TIMES = 5
PACKAGES = (
    "transformers",
    "verl",
    "flash-attn",
    "liger-kernel",
    "trl",
    "peft",
    "bitsandbytes",
    "vllm",
    "triton",
)


def device(bench: Bench) -> None:
    """Memory and its bandwidth, matrix rate, and collectives of the process group that training
    joins.
    """
    import torch.distributed as dist

    place, kind = (
        torch.device(bench.setting.device),
        torch.bfloat16 if bench.on_gpu else torch.float32,
    )
    size = 8192 if bench.on_gpu else 256
    a, b = (torch.randn(size, size, device=place, dtype=kind) for _ in range(2))
    seconds = timed(bench, lambda: a @ b)
    bench.figure(
        "matrix product", "TFLOP/s", 2 * size**3 / seconds / 1e12, note=f"{size} x {size}, {kind}"
    )
    source = torch.randn(2**30 if bench.on_gpu else 2**20, device=place)
    target = torch.empty_like(source)
    seconds = timed(bench, lambda: target.copy_(source))
    bench.figure("copy", "GB/s", 2 * source.nbytes / seconds / 1e9, note="bytes read and written")
    if bench.on_gpu:
        free, total = torch.cuda.mem_get_info()
        bench.figure("memory", "GB", total / 1e9, note=f"{free / 1e9:.1f} GB free")
    gpu_binding.check_device(bench.setting.device)
    process_group.join(bench.setting.device, "env://", timedelta(seconds=60))
    mine = torch.randn(1 << 20, device=place)
    collectives: dict[str, Callable[[torch.Tensor], object]] = {
        "all_reduce": dist.all_reduce,
        "all_gather_into_tensor": lambda out: dist.all_gather_into_tensor(out, mine),
        "reduce_scatter_tensor": lambda out: dist.reduce_scatter_tensor(out, mine),
    }
    for name, collective in collectives.items():
        out = mine.clone() if name == "all_reduce" else torch.full_like(mine, torch.nan)
        try:
            collective(out)
        except RuntimeError as e:
            if bench.on_gpu:
                raise
            bench.skip(name, f"not on a CPU: {e}".splitlines()[0])
            continue
        bench.figure(name, "error", (out - mine).abs().max().item(), limit=0.0, note="one rank")
    dist.destroy_process_group()


def attention(bench: Bench) -> None:
    """The registered attention functions over a packed row, forward and backward, against SDPA per
    document.
    """
    from trainer.engine.attention import choose

    backends = [choose("auto", bench.setting.device, bench.setting.precision)]
    if backends == ["flash_attn"]:
        backends.append("varlen")
    elif bench.on_gpu:
        bench.skip("flash_attn", "flash-attn is not installed")
    inputs = Heads.random(bench)
    wanted = inputs.reference(torch.float32)
    plain = timed(bench, partial(inputs.reference, inputs.q.dtype))
    for backend in backends:
        for name, mine, theirs in zip(
            ("out", "dq", "dk", "dv"), inputs.ours(backend), wanted, strict=True
        ):
            limit = FORWARD if name == "out" else BACKWARD
            bench.figure(f"{backend} {name}", "relative error", error(mine, theirs), limit=limit)
        seconds = timed(bench, partial(inputs.ours, backend))
        bench.figure(
            f"{backend} forward and backward",
            "ms",
            1e3 * seconds,
            peer=1e3 * plain,
            peer_name="SDPA per document",
        )


@dataclass(frozen=True)
class Heads:
    """A packed row as a layer's attention gets it: (1, heads, tokens, dim), and the gradient of the
    result.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grad: torch.Tensor
    lengths: list[int]

    @classmethod
    def random(cls, bench: Bench) -> Heads:
        s, tokens = bench.setting.shape, bench.setting.loads["full"].length
        lengths = [max(1, int(share * tokens)) for share in SHARES]
        lengths[0] += tokens - sum(lengths)
        kind = torch.bfloat16 if bench.on_gpu else torch.float32

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(1, *shape, device=bench.setting.device, dtype=kind)

        q, k, v = (normal(heads, tokens, s.head_dim) for heads in (s.heads, s.kv_heads, s.kv_heads))
        return cls(q, k, v, normal(tokens, s.heads, s.head_dim), lengths)

    def ours(self, backend: str) -> list[torch.Tensor]:
        """(tokens, heads, dim) and the gradients of q, k, v from the function that a model
        calls.
        """
        from transformers import AttentionInterface

        from trainer.engine.attention import name

        attend = AttentionInterface()[name(backend)]
        q, k, v = (x.detach().requires_grad_() for x in (self.q, self.k, self.v))
        starts = torch.tensor([0, *self.lengths], device=q.device).cumsum(0).to(torch.int32)
        out, _ = attend(
            SimpleNamespace(),
            q,
            k,
            v,
            None,
            scaling=q.shape[-1] ** -0.5,
            cu_seq_lens_q=starts,
            max_length_q=max(self.lengths),
        )
        return [out, *torch.autograd.grad(out, (q, k, v), self.grad)]

    def reference(self, kind: torch.dtype) -> list[torch.Tensor]:
        """The same from SDPA, a document at a time, key-value heads repeated by hand; in float32
        without a kernel.
        """
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        q, k, v = (x.detach().to(kind).requires_grad_() for x in (self.q, self.k, self.v))
        repeats = q.shape[1] // k.shape[1]
        equal = (q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
        parts = (x.split(self.lengths, dim=2) for x in equal)
        with sdpa_kernel(SDPBackend.MATH) if kind == torch.float32 else nullcontext():
            documents = [
                scaled_dot_product_attention(query, key, value, is_causal=True)
                for query, key, value in zip(*parts, strict=True)
            ]
        out = torch.cat(documents, dim=2).transpose(1, 2)
        return [out, *torch.autograd.grad(out, (q, k, v), self.grad.to(kind))]


def loss(bench: Bench) -> None:
    """The chunked loss and its gradients against full float32 logits, and its memory beside
    theirs: eager, and on a GPU also compiled.
    """
    from torch.nn.functional import cross_entropy

    from trainer.engine.loss import CHUNK_BYTES, linear_cross_entropy

    s, place = bench.setting.shape, bench.setting.device
    kind = torch.bfloat16 if bench.on_gpu else torch.float32
    tokens = bench.setting.loads["full"].length // 2
    made_hidden = torch.randn(tokens, s.hidden, device=place, dtype=kind)
    made_weight = (torch.randn(s.vocabulary, s.hidden, device=place) * bench.setting.spread).to(
        kind
    )
    labels = torch.randint(0, s.vocabulary, (tokens,), device=place)
    # At least four chunks, the last one smaller.
    chunk = min(CHUNK_BYTES, 4 * s.vocabulary * (tokens // 3 - 1))

    def ours(fused: bool) -> list[torch.Tensor]:
        hidden, weight = (x.detach().requires_grad_() for x in (made_hidden, made_weight))
        total, losses, sums = linear_cross_entropy(hidden, weight, labels, 1 / tokens, chunk, fused)
        return [losses, *torch.autograd.grad(total, (hidden, weight)), sums[1] / tokens]

    def plain(wanted: torch.dtype) -> list[torch.Tensor]:
        hidden, weight = (
            x.detach().to(wanted).requires_grad_() for x in (made_hidden, made_weight)
        )
        losses = cross_entropy((hidden @ weight.T).float(), labels, reduction="none")
        return [losses, *torch.autograd.grad(losses.mean(), (hidden, weight))]

    theirs = plain(torch.float32)
    shares = (made_hidden.float() @ made_weight.float().T).softmax(-1)
    wanted = torch.special.entr(shares).sum(-1).double().mean()
    del shares
    for fused in (False, True) if bench.on_gpu else (False,):
        *mine, entropy = ours(fused)
        prefix = "compiled " if fused else ""
        for name, a, b in zip(
            ("losses", "hidden's gradient", "weight's gradient"), mine, theirs, strict=True
        ):
            limit = FORWARD if name == "losses" else BACKWARD
            bench.figure(prefix + name, "relative error", error(a, b), limit=limit)
        means = mine[0].double().mean() / theirs[0].double().mean(), entropy / wanted
        for name, ratio, limit in zip(("loss", "entropy"), means, (1e-3, 2e-2), strict=True):
            off = (ratio - 1).abs().item()
            bench.figure(f"{prefix}mean {name}", "relative error", off, limit=limit)
        del mine
        seconds, full = timed(bench, partial(ours, fused)), timed(bench, partial(plain, kind))
        peer = {"peer_name": "full logits"}
        name = f"{prefix}forward and backward"
        bench.figure(name, "ms", 1e3 * seconds, peer=1e3 * full, **peer)
        if bench.on_gpu:
            own, whole = taken(partial(ours, fused)), taken(partial(plain, kind))
            bench.figure(f"{prefix}memory", "GB", own, peer=whole, **peer)


def error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """‖ours - reference‖ / ‖reference‖ in float64; not a number where either holds one that is
    none.
    """
    a, b = ours.detach().double(), reference.detach().double()
    return ((a - b).norm() / b.norm()).item()


def timed(bench: Bench, call: Callable[[], object]) -> float:
    """Median seconds of a call after a first one."""
    call()
    seconds = []
    for _ in range(TIMES):
        synchronize(bench)
        begin = time.perf_counter()
        call()
        synchronize(bench)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def synchronize(bench: Bench) -> None:
    """Waits for the device."""
    if bench.on_gpu:
        torch.cuda.synchronize()


def taken(call: Callable[[], object]) -> float:
    """GB that a call takes at its peak, besides what is there."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def describe() -> dict[str, Any] | None:
    """Name, memory in bytes, compute capability, driver and package versions."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }


def driver() -> str:
    """The driver's version, unknown without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def installed(package: str) -> str | None:
    """A package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(describe()))
