"""The text of ``warmstart plan``: assumptions, layouts side by side, the recommended one in
detail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from common.errors import UserError
from trainer.planning.cost import cost
from trainer.planning.memory import GIB
from trainer.planning.planner import BALANCED, CHECKPOINTING, NEARLY, Forecast, Planner, recommend


def page(planner: Planner) -> tuple[str, bool]:
    """Returns (the text of ``warmstart plan``, whether any layout fits).

    Raises UserError when the cluster has more GPUs than the batch can feed.
    """
    own, layouts = planner.own(), list(planner.layouts())
    if not layouts:
        raise UserError(
            f"{planner.cluster.ranks} GPUs are too many for "
            f"train.batch_size={planner.config.train.batch_size}: raise it, or plan for fewer "
            "(cluster.nodes, cluster.gpus_per_node)"
        )
    best = recommend(layouts)
    shown = [("best" if f is best else "", f) for f in _leading(layouts, best)]
    if own is not None:
        shown.insert(0, ("recipe", own))
    parts = [_setting(planner), _table(planner, shown)]
    if own is not None:
        parts.append(_detail("the recipe", own, planner))
        if not planner.shape.lora_rank:
            parts.append(_settings(own, planner))
    if best is not None and (own is None or best.setup != own.setup):
        parts.append(_detail("the best", best, planner))
    parts.append(
        _refusal(planner, layouts) if best is None else _advice(own, best, planner.shape.parameters)
    )
    if own is not None and own.fits:
        parts.append(_cost(planner, own))
    return "\n\n".join(parts), best is not None


def _cost(planner: Planner, own: Forecast) -> str:
    try:
        return cost(planner, own).page()
    except UserError as e:
        return f"cost of evaluations: {e}"


def _setting(planner: Planner) -> str:
    config, cluster, rows = planner.config, planner.config.cluster, planner.lengths.tokens
    median, p99 = np.percentile(rows, [50, 99])
    return (
        f"{config.name}: {config.model.path}, {planner.shape.parameters:,} parameters\ncluster: "
        f"nodes x GPUs {cluster.nodes} x {cluster.gpus_per_node} {cluster.gpu} "
        f"({planner.cluster.gpu.memory / GIB:.1f} GiB each), {cluster.network_gbits:,} Gb/s per "
        f"node\nrows: {len(rows):,}, mean {rows.mean():,.0f}, median {median:,.0f}, p99 "
        f"{p99:,.0f}, longest {rows.max():,} tokens\n      ({planner.lengths.source})\nrun: "
        f"{planner.total_steps:,} steps of {config.train.batch_size} rows, {planner.tokens:,.0f} "
        "tokens per step"
    )


def _leading(layouts: list[Forecast], best: Forecast | None) -> Iterator[Forecast]:
    """Yields a layout per degree and checkpointing, and per degree one with offload.

    Each is ``best`` if that is among the choices, otherwise the fastest that fits, otherwise the
    one that needs the least memory.
    """
    seen = {f.setup.sequence_parallel for f in layouts}
    for degree in sorted(seen):
        of_degree = [f for f in layouts if f.setup.sequence_parallel == degree]
        for offload, kinds in ((False, [(k,) for k in CHECKPOINTING]), (True, [CHECKPOINTING])):
            for kind in kinds:
                choices = [
                    f
                    for f in of_degree
                    if f.setup.offload == offload and f.setup.checkpointing in kind
                ]
                fitting = [f for f in choices if f.fits]
                if best in choices:
                    yield best
                elif not choices:  # a QLoRA is not offloaded
                    continue
                elif fitting:
                    yield min(fitting, key=lambda f: f.step.total)
                else:
                    yield min(choices, key=lambda f: f.needed)


def _table(planner: Planner, rows: Iterable[tuple[str, Forecast]]) -> str:
    lines = [
        "        sequence   tokens  checkpoint-               GiB             step               "
        "   tokens/s",
        "        parallel  per GPU  ing          offload  per GPU  fits          s  hours  "
        "balance   per GPU   MFU",
    ]
    for mark, f in rows:
        s, seconds = f.setup, f.step.total
        hours, rate, mfu = _speed(planner, seconds)
        lines.append(
            f"{mark:<8}{s.sequence_parallel:>8} {s.tokens:>8,}  {s.checkpointing:<12} "
            f"{'yes' if s.offload else 'no':<7}{f.needed / GIB:>9.1f}  "
            f"{'yes' if f.fits else 'NO':<5}{seconds:>10.2f} {hours:>6.1f} {f.balance:>8.2f}"
            f"{rate:>10,.0f} {mfu:>5.0%}"
        )
    return "\n".join(lines)


def _speed(planner: Planner, seconds: float) -> tuple[float, float, float]:
    """Returns (hours of the run, tokens/s per GPU, causal MFU without recomputation) at ``seconds``
    per step.
    """
    ranks = planner.cluster.ranks
    peak = planner.cluster.gpu.peak(planner.compute)
    return (
        planner.hours(seconds),
        planner.tokens / seconds / ranks,
        planner.flops / seconds / ranks / peak,
    )


def _detail(name: str, f: Forecast, planner: Planner) -> str:
    memory = "\n".join(f"  {line:<24}{size / GIB:>7.2f}" for line, size in f.lines.items())
    step = f.step
    return (
        f"{name}: {f.overrides}\n peak memory, GiB per GPU\n{memory}\n  "
        f"{'total':<24}{f.needed / GIB:>7.2f} of {planner.cluster.gpu.memory / GIB:.1f}\n seconds "
        f"per step\n  {'compute, slowest group':<24}{step.compute:>7.2f}\n  "
        f"{'waiting for FSDP':<24}{step.waiting:>7.2f}\n  "
        f"{'Ulysses exchange':<24}{step.exchange:>7.2f}\n  "
        f"{'optimizer':<24}{step.optimizer:>7.2f}\n  {'total':<24}{step.total:>7.2f}"
    )


def _settings(own: Forecast, planner: Planner) -> str:
    """Returns the recipe's step time next to those with one setting switched."""
    setup = own.setup
    other = {
        f"train.compile={_word(not setup.compiled)}": replace(setup, compiled=not setup.compiled),
        f"train.fused_optimizer={_word(not setup.fused)}": replace(setup, fused=not setup.fused),
    }
    if not setup.compiled:  # nothing has counted Liger's kernels inside compiled layers
        other[f"train.liger={_word(not setup.liger)}"] = replace(setup, liger=not setup.liger)
    steps = {"as it is": own.step.total}
    steps |= {name: planner.forecast(each).step.total for name, each in other.items()}
    lines = ["the recipe with one setting changed, seconds per step and MFU"]
    for name, seconds in steps.items():
        lines.append(f"  {name:<29}{seconds:>7.2f} {_speed(planner, seconds)[2]:>5.0%}")
    lines.append("  train.prefetch changes nothing as long as the host is ahead of the GPU.")
    return "\n".join(lines)


def _word(on: bool) -> str:
    return str(on).lower()


def _advice(own: Forecast | None, best: Forecast, parameters: int) -> str:
    if own is None:
        stands = "the recipe's train.sequence_parallel cannot run on this cluster"
    elif (
        own.fits
        and own.step.total <= NEARLY * best.step.total
        and own.balance >= min(BALANCED, best.balance)
    ):
        return "The recipe's own layout is as fast as any that fits here."
    elif own.fits and own.step.total <= best.step.total:
        stands = (
            f"equally fast in the forecast, with balance {best.balance:.2f} "
            f"instead of the recipe's {own.balance:.2f}"
        )
    elif own.fits:
        stands = f"{own.step.total / best.step.total:.2f} times as fast as the recipe's layout"
    else:
        stands = "the recipe's layout does NOT fit"
    share = 16 * parameters / best.setup.ranks / GIB
    host = f"\nEach GPU needs {share:.0f} GiB of host memory: make sure the nodes have it."
    return f"recommended ({stands}):\n  {best.overrides}" + (host if best.setup.offload else "")


def _refusal(planner: Planner, layouts: list[Forecast]) -> str:
    least = min(layouts, key=lambda f: f.needed)
    return (
        f"NOTHING FITS: the smallest layout ({least.overrides}) needs {least.needed / GIB:.1f} GiB "
        f"per GPU; {planner.config.cluster.gpu} has {planner.cluster.gpu.memory / GIB:.1f}.\n"
        "Plan for more GPUs (cluster.nodes) or larger ones (cluster.gpu), or lower data.max_length."
    )
