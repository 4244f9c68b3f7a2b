"""Prints docs/limits.md: lower bounds from arithmetic and memory traffic, and the forecasts for the
recipes.

    python -m tools.limits_page > docs/limits.md

Every figure is computed here from the planner's own functions and assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.text import markdown_table
from trainer.batching.flops import Shape
from trainer.planning.cluster import LINK_SHARE, MEMORY_SHARE
from trainer.planning.hardware import GPUS
from trainer.planning.memory import CONTEXT, FLOAT32, FRAGMENTATION, GIB
from trainer.planning.planner import BALANCED, NEARLY, TOLERANCE, Forecast, Planner, recommend
from trainer.planning.workload import (
    CHARACTERS_A_TOKEN,
    MEDIAN_CHARACTERS,
    P99_CHARACTERS,
    assumed_lengths,
)
from trainer.recipe import load as configs

RECIPES = {"sft_4b": "4B, 45,000 rows x 2", "sft_8b": "8B, 90,000 rows x 2"}
CLUSTERS = {
    "4 x 4 a100-40": [
        "cluster.gpu=a100-40",
        "cluster.nodes=4",
        "cluster.gpus_per_node=4",
        "cluster.network_gbits=200",
    ],
    "2 x 8 h100-80": [
        "cluster.gpu=h100-80",
        "cluster.nodes=2",
        "cluster.gpus_per_node=8",
        "cluster.network_gbits=3200",
    ],
}
ADAMW_BYTES = 28
"""Bytes per parameter: weight, gradient and two moments are read once, and all but the gradient
written once.
"""


def activation_bytes(shape: Shape) -> float:
    """Returns the least bytes that training moves per token in bf16: every matmul and attention
    reads and writes once.

    Assumes that everything between them is fused into them, and that backward moves twice as much
    as forward.
    """
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 3 * 2 * shape.layers * (6 * shape.hidden + 4 * query + 4 * kv + 2 * shape.intermediate)


def floors(planner: Planner) -> tuple[float, float]:
    """Returns lower bounds of the run's hours: (arithmetic at the full peak, memory traffic at the
    full bandwidth).

    Weights are read in forward and in backward and their gradients written, in bf16, once per step.
    """
    gpu, ranks, shape = planner.cluster.gpu, planner.cluster.ranks, planner.shape
    arithmetic = planner.flops / ranks / gpu.peak(2)
    moved = (
        3 * 2 * shape.parameters
        + activation_bytes(shape) * planner.tokens / ranks
        + ADAMW_BYTES * shape.parameters / ranks
    )
    return planner.hours(arithmetic), planner.hours(moved / gpu.memory_bandwidth)


FLOOR_TITLES = (
    "run",
    "nodes x GPUs",
    "arithmetic floor",
    "traffic floor",
    "recipe",
    "recommended",
    "MFU",
    "layout",
)
GPU_TITLES = (
    "`cluster.gpu`",
    "CUDA's name: NVIDIA ...",
    "GiB",
    "memory GB/s",
    "link GB/s",
    "bf16 TFLOP/s",
    "matmuls reach",
    "attention",
)


@dataclass(frozen=True)
class Run:
    """A recipe on a cluster: forecasts in its own layout and in the recommended one."""

    recipe: str
    cluster: str
    planner: Planner
    own: Forecast
    best: Forecast

    @classmethod
    def of(cls, recipe: str, cluster: str) -> Run:
        """Plans the recipe on the cluster, with the assumed row lengths."""
        config = configs.load(recipe, CLUSTERS[cluster])
        planner = Planner(config, assumed_lengths(config))
        own, best = planner.own(), recommend(list(planner.layouts()))
        assert own is not None and best is not None
        return cls(recipe, cluster, planner, own, best)

    def hours(self, forecast: Forecast) -> float:
        """Returns the run's hours under a forecast."""
        return self.planner.hours(forecast.step.total)


def page() -> str:
    """Returns the page as Markdown."""
    runs = [Run.of(recipe, cluster) for recipe in RECIPES for cluster in CLUSTERS]
    here = [run for run in runs if run.cluster == "4 x 4 a100-40"]
    small = here[0]
    return TEXT.format(
        hours=small.hours(small.best),
        own_hours=small.hours(small.own),
        own_gib=small.own.needed / GIB,
        own_fits="fits" if small.own.fits else "does not fit",
        steps=small.planner.total_steps,
        tokens=small.planner.tokens,
        floors=markdown_table([FLOOR_TITLES, *map(_row, runs)], "llrrrrrl"),
        memory=_memory([f for run in here for f in (run.own, run.best)]),
        gpus=markdown_table([GPU_TITLES, *map(_gpu, GPUS)], "llrrrrrr"),
        link=LINK_SHARE,
        hbm=MEMORY_SHARE,
        context=CONTEXT / GIB,
        tolerance=TOLERANCE - 1,
        balanced=BALANCED,
        nearly=NEARLY - 1,
        fragmentation=FRAGMENTATION,
        median=MEDIAN_CHARACTERS,
        p99=P99_CHARACTERS,
        ratio=CHARACTERS_A_TOKEN,
        accumulated=" and ".join(
            f"{FLOAT32 * run.planner.shape.parameters / GIB:.0f}" for run in here
        ),
    )


def _row(run: Run) -> tuple[str, ...]:
    arithmetic, traffic = floors(run.planner)
    setup, hours = run.best.setup, run.hours(run.best)
    layout = f"sp {setup.sequence_parallel}, {setup.tokens:,} tokens, {setup.checkpointing}"
    return (
        RECIPES[run.recipe],
        run.cluster,
        f"{arithmetic:.2f}",
        f"{traffic:.2f}",
        f"{run.hours(run.own):.1f}{'' if run.own.fits else ' (does not fit)'}",
        f"{hours:.1f}",
        f"{arithmetic / hours:.0%}",
        layout,
    )


def _memory(forecasts: list[Forecast]) -> str:
    names = list(dict.fromkeys(line for f in forecasts for line in f.lines))
    rows = [(name, *(f"{f.lines.get(name, 0) / GIB:.2f}" for f in forecasts)) for name in names]
    total = ("**total**", *(f"**{f.needed / GIB:.2f}**" for f in forecasts))
    titles = ("", "4B recipe", "4B recommended", "8B recipe", "8B recommended")
    return markdown_table([titles, *rows, total])


def _gpu(name: str) -> tuple[str, ...]:
    gpu = GPUS[name]
    return (
        name,
        ", ".join(gpu.names),
        f"{gpu.memory / GIB:.1f}",
        f"{gpu.memory_bandwidth / 1e9:,.0f}",
        f"{gpu.nvlink / 1e9:.0f}",
        f"{gpu.peak(2) / 1e12:,.0f}",
        f"{gpu.matmul_share:.0%}",
        f"{gpu.attention_share:.0%}",
    )


TEXT = """# Limits on paper

The lower bounds that the hardware sets, and the forecasts for the recipes. **Nothing on this page
was measured on a GPU**: every figure comes from the functions behind `warmstart plan`
(`python -m tools.limits_page` writes the page, a test compares them).
[measured.md](measured.md) is the page for measurements.

**Forecast for the 4B run**, 45,000 rows x 2 epochs on 16 A100-40GB, {steps:,} steps of
{tokens:,.0f} tokens: **{own_hours:.1f} hours in the recipe's [layout](glossary.md#layout)**, which
needs {own_gib:.1f} GiB per GPU and {own_fits}; {hours:.1f} hours in the recommended one. Saves and
evaluations are not included.

Row lengths are assumed from published figures: a lognormal with median {median:,} and p99 {p99:,}
characters at {ratio} characters per token, without the rows that `data.max_length` drops.

## Lower bounds and forecasts, in hours per run

{floors}

- *Arithmetic floor*: the training FLOPs of the rows (6 per matmul weight and token, causal
  attention, no recomputation) at the full bf16 peak of all GPUs. MFU is this floor over the
  forecast of the recommended layout.
- *Traffic floor*: per step, weights are read twice and gradients written once, the inputs and
  outputs of every matmul and attention move once, and AdamW's state once, at the full memory
  bandwidth. It is far below the arithmetic floor, so a step could be compute-bound. Eager kernels
  move several times as much, because norms, rotary embedding and SwiGLU are separate kernels.
- *Layout*: sequence-parallel degree, tokens per micro-batch and GPU, checkpointing.
- *Recommended*: layouts whose forecast step is within {tolerance:.0%} of the shortest count as
  equally fast. Those of them with a [balance](glossary.md#balance) of {balanced} (or else the best
  one) are candidates. Of the candidates within {nearly:.0%} of the fastest, the one that needs the
  least memory is recommended.

## Peak memory on 4 x 4 A100-40GB, GiB per GPU

{memory}

Weights, gradients and AdamW's two moments are float32, sharded over all GPUs. Tensors are counted
one by one (`trainer/planning/memory.py`). How far the count is tested:

- `make test-cuda` runs the recipes' steps on CUDA tensors without values, with eager layers: 90 to
  100 % of the count is live at the peak, and FLOPs and memory traffic of all operators are within
  10 % of the forecast.
- Kernels and traffic of compiled layers are within 10 % of Inductor's plans; their memory is a
  forecast only.
- Real steps on CPU take memory within 10 % of the count
  (`tests/trainer/planning/test_planner.py`).
- CUDA and NCCL ({context} GiB) and fragmentation ({fragmentation:.0%}) are assumed.

`verl.engine.use_no_sync_for_gradient_accumulation` stays off: it delays the reduce-scatter to the
last micro-batch, and would keep unsharded float32 gradients of {accumulated} GiB (4B and 8B) on
every GPU.

## Assumptions about the hardware

{gpus}

- Rates and bf16 peaks are from NVIDIA's data sheets, without sparsity. Matmuls and attention are
  assumed to reach the stated share of the peak (sources: `trainer/planning/hardware.py`).
- The link is between GPUs of one node, in one direction: PCIe where NVLink is missing or joins only
  pairs. Collectives reach {link:.0%} of a link, elementwise kernels {hbm:.0%} of the memory
  bandwidth. The network is 200 Gb/s per node for A100, 3,200 for H100.
- Kernels are those of the recipe: with `train.compile=true` the ones that Inductor plans, else
  transformers' eager ones or Liger's. A layer takes at least 8 µs per kernel, the host's time to
  launch it (assumed).
- A step's time is the sum over its micro-steps of three parts: the slowest group's matmuls,
  attention and elementwise traffic; the part of FSDP's gathers and reduce-scatters that these do
  not hide; and Ulysses' exchanges, which are never hidden.
- For a GPU that is not listed (a MIG slice, a virtual GPU, a laptop's), choose the nearest kind and
  set `cluster.gpu_memory_gib` and `cluster.gpu_peak_tflops`.
"""


if __name__ == "__main__":
    print(page(), end="")
