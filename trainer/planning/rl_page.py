"""The text of ``warmstart plan --rl``: GRPO's settings, memory and time on several clusters, beside
verl's published example.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from common.errors import UserError
from trainer.batching.flops import Shape
from trainer.planning.cluster import Cluster
from trainer.planning.hardware import GPUS
from trainer.planning.memory import GIB
from trainer.planning.rl_memory import RESERVE, VLLM_ASLEEP, VLLM_WORKING, RlSetup
from trainer.planning.rl_settings import RlForecast, choose
from trainer.planning.rl_time import RlLoad

KINDS, NODES = ("a100-40", "a100-80", "h100-80", "h200-141"), (1, 4)
"""The clusters of the table, beside the recipe's own."""
HEAD = (
    "                       tensor vLLM's                    tokens per GPU sequence"
    "     GiB per GPU      rollouts  seconds per step\n"
    "cluster              parallel  share  offload           update  old log parallel"
    "  trainer generation in flight  rollouts old log  update weights   total"
)
EXAMPLE = """\
verl's own example   {:>8} {:>6.2f}  {:<16}{:>8,} {:>8,} {:>8}
  (examples/grpo_trainer/run_qwen3_4b_fsdp.sh of verl-project/verl at 50ef5e4: Qwen3-4B, 8 GPUs,
  kind not named, prompt and response of at most 1,024 tokens, 512 x 5 rollouts, entropy whole)"""
EXAMPLE_VALUES = 2, 0.6, "no", 3000, 4096, 1
"""Tensor parallel, share, offload, tokens of the update and of old log-probabilities, sequence
parallel.
"""
EXAMPLE_ROW = 2048
"""Tokens of the example's longest row."""
FORMULAS = f"""\
Per GPU, with P weights, L layers, V words, G GPUs, t GPUs per engine (tensor parallel); everything
is a forecast, none of it was measured:
  generation = 4P/G weights + 8P/G moments (each 0 if offloaded) + share x GPU + CUDA and NCCL
  trainer    = 16P/G + checkpoints, a layer, 2V bytes per token of logits; old log-probabilities
               add entropy: 8V bytes per token whole, 12V x 2,048 bytes in chunks
               + CUDA and NCCL, fragmentation, {VLLM_ASLEEP / GIB:.1f} GiB of a sleeping vLLM
  reserve    = {RESERVE / GIB:.0f} GiB stay free at every moment
  in flight  = (share x GPU - 2P/t - {VLLM_WORKING / GIB:.0f} GiB) / (4L x KV heads x head_dim / t)
               / (longest prompt + mean response), per engine
  rollouts   = decode steps x max((2P/t + cache held) / bandwidth, 2P x rollouts / t / FLOP/s)
  old log    = 2P FLOPs per token + attention; update: 6P + 2P for recomputation + attention
  weights    = gather 4P bytes + write 2P; offloaded state crosses PCIe"""


@dataclass(frozen=True)
class RlPlan:
    """The inputs of the page."""

    name: str
    shape: Shape
    own: Cluster
    """The recipe's cluster, whose GPUs per node and network every row has."""
    own_name: str
    load: RlLoad
    group: int
    temperature: float


def page(plan: RlPlan) -> tuple[str, bool]:
    """Returns (the text, whether the recipe's own cluster has settings that fit)."""
    rows, own = [], _forecast(plan, plan.own)
    for name, cluster in _clusters(plan):
        found = own if cluster == plan.own else _forecast(plan, cluster)
        mark = "*" if cluster == plan.own else " "
        rows.append(_row(f"{mark} {name}", found))
    parts = [_setting(plan), "\n".join([HEAD, *rows, EXAMPLE.format(*EXAMPLE_VALUES)])]
    if plan.load.context > EXAMPLE_ROW:
        parts.append(
            f"verl refuses a row that is longer than a budget: the example's {EXAMPLE_VALUES[3]:,} "
            f"and {EXAMPLE_VALUES[4]:,} tokens suit its rows of {EXAMPLE_ROW:,}; here a row has up "
            f"to {plan.load.context:,}."
        )
    parts.append(FORMULAS)
    if isinstance(own, UserError):
        parts.append(f"NOTHING FITS on the recipe's cluster. {own}")
    return "\n\n".join(parts), isinstance(own, RlForecast)


def _forecast(plan: RlPlan, cluster: Cluster) -> RlForecast | UserError:
    try:
        return choose(plan.shape, cluster, plan.load, plan.temperature)
    except UserError as e:
        return e


def _clusters(plan: RlPlan) -> Iterator[tuple[str, Cluster]]:
    """Yields the clusters with their names: the recipe's own first if the table lacks it."""
    each = plan.own.gpus_per_node
    table = [
        (f"{nodes} x {each} {kind}", replace(plan.own, gpu=GPUS[kind], nodes=nodes))
        for kind in KINDS
        for nodes in NODES
    ]
    if plan.own not in [cluster for _, cluster in table]:
        yield f"{plan.own.nodes} x {each} {plan.own_name}", plan.own
    yield from table


def _setting(plan: RlPlan) -> str:
    load, lengths = plan.load, plan.load.responses
    median, p99 = np.percentile(lengths, [50, 99])
    return (
        f"{plan.name}: GRPO, {plan.shape.parameters:,} parameters\nstep: {len(lengths):,} rollouts "
        f"in groups of {plan.group}, temperature {plan.temperature:g}\nresponses: limit "
        f"{load.limit:,}, mean {lengths.mean():,.0f}, median {median:,.0f}, p99 {p99:,.0f} tokens; "
        f"longest prompt {load.prompt:,}\n           ({load.source})\nclusters: nodes x GPUs; GPUs "
        f"per node and {plan.own.network * 8 / 1e9:,.0f} Gb/s per node are the recipe's, for each "
        "kind of GPU; * is the recipe's own"
    )


def _row(name: str, found: RlForecast | UserError) -> str:
    if isinstance(found, UserError):
        return f"{name:<21} does not fit"
    setup, time = found.setup, found.time
    step = setup.training
    return (
        f"{name:<21}{setup.tensor_parallel:>8} {setup.utilization:>6.2f}  {_offload(setup):<16}"
        f"{step.tokens:>8,} {setup.log_prob_tokens:>8,} {step.sequence_parallel:>8} "
        f"{sum(found.trainer.values()) / GIB:>8.1f} {sum(found.generation.values()) / GIB:>10.1f} "
        f"{found.in_flight:>9.1f} {time.rollouts:>9,.0f} {time.log_probs:>7,.0f} "
        f"{time.update:>7,.0f} {time.weights:>7.1f} {time.total:>7,.0f}"
    )


def _offload(setup: RlSetup) -> str:
    """Returns what the settings keep on the host, in one or two words."""
    if setup.training.offload:
        return "all, always"
    kinds = {"weights": setup.param_offload, "moments": setup.optimizer_offload}
    return "+".join(name for name, is_off in kinds.items() if is_off) or "no"
