"""How long ranks wait for the slowest: the planner against verl's deal, on steps of lognormal row
lengths.

    python -m tests.bench.bench_balance [DRAWS [CASES]]      (default 100, all)

A case is clip/batch/ranks/sp: lengths of median 6K and sigma 0.8 clipped at 16K or 32K tokens, rows
of a step, GPUs, sequence-parallel degree. A micro-batch holds clip x sp tokens. The figure is the
groups' mean FLOPs over those of the slowest group of every micro-step, for Qwen3-4B. Both peers run
verl's code: its SFT trainer (random rows for each rank) and the balancing of its Ray trainer. Cases
with more groups than rows are left out: verl cannot run them.

`plan` is the degree that the planner takes on nodes of four A100-40GB with a 200 Gb/s adapter for
each GPU. Groups cannot be larger than the model has heads, and no plan is shorter than its longest
row: where that allows less than the limit, the most that it allows stands beside the figure, and
the limit is 99 % of that.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from common.errors import UserError
from tests.bench.table import Result, publish
from trainer.batching.balance import MicroBatches, StepPlan, plan_step, row_flops
from trainer.batching.flops import Shape, training_flops
from trainer.planning.cluster import Cluster, degrees
from trainer.planning.hardware import GPUS
from trainer.planning.memory import Setup
from trainer.planning.planner import eligible
from trainer.planning.step_time import timing
from trainer.planning.workload import KNOWN

QWEN3_4B = KNOWN["Qwen/Qwen3-4B-Base"]
CLIPS = {"16K": 16_384, "32K": 32_768}
BATCHES = (16, 64, 128, 256)
RANKS = (16, 64, 256, 1024)
GPUS_PER_NODE, NETWORK, FORECAST = (
    4,
    4 * 25e9,
    12,
)  # bytes/s of a node; draws that the planner sees, as in its own
STOCK, RAY = "verl SFT trainer", "verl Ray trainer"


def draw(clip: int, batch: int, seed: int) -> dict[int, int]:
    """One step's rows: row -> tokens."""
    lengths = np.random.default_rng([clip, batch, seed]).lognormal(np.log(6000), 0.8, batch)
    return dict(enumerate(np.clip(lengths.round(), 1, clip).astype(int).tolist()))


def planned(micro_batches: MicroBatches, lengths: dict[int, int]) -> StepPlan:
    """The plan with these micro-batches, for Qwen3-4B."""
    return StepPlan.of(micro_batches, lengths, row_flops(lengths, QWEN3_4B))


def verl_micro_batches(lengths: dict[int, int], groups: list[list[int]], budget: int) -> StepPlan:
    """verl's ``rearrange_micro_batches`` on every group of rows, as many virtual ranks in this
    process.

    Real ranks agree on the lowest number of micro-batches, from the largest minimum up, at which
    all are within the budget. A rank alone returns the lowest from ``min_num_micro_batch`` up at
    which it is: asking all for the largest answer until it stands is the same number.
    """
    import torch
    from verl.utils.seqlen_balancing import rearrange_micro_batches

    def rearrange(rows: list[int], count: int) -> list[list[int]]:
        # verl only sums the mask over its columns: one column that holds the length will do.
        mask = torch.tensor([[lengths[row]] for row in rows])
        batch = {"input_ids": mask, "attention_mask": mask}
        _, micros = rearrange_micro_batches(batch, budget, min_num_micro_batch=count)
        return [[rows[i] for i in micro] for micro in micros]

    plan = [rearrange(rows, 1) for rows in groups]
    while len({len(micros) for micros in plan}) > 1:
        count = max(len(micros) for micros in plan)
        plan = [
            micros if len(micros) == count else rearrange(rows, count)
            for rows, micros in zip(groups, plan, strict=True)
        ]
    return planned(plan, lengths)


def stock(lengths: dict[int, int], groups: int, budget: int) -> StepPlan:
    """verl's SFT trainer: torch's DistributedSampler gives every rank its share, each packs its
    own.
    """
    from torch.utils.data import DistributedSampler

    samplers = [
        DistributedSampler(range(len(lengths)), groups, rank, drop_last=True)
        for rank in range(groups)
    ]
    return verl_micro_batches(lengths, [list(sampler) for sampler in samplers], budget)


def ray(lengths: dict[int, int], groups: int, budget: int) -> StepPlan:
    """verl's Ray trainer (``_balance_batch``): ranks get equally many rows of like workload, each
    packs its own.
    """
    import torch
    from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

    workload = calculate_workload(torch.tensor(list(lengths.values()))).tolist()
    return verl_micro_batches(
        lengths, get_seqlen_balanced_partitions(workload, groups, equal_size=True), budget
    )


def ours(lengths: dict[int, int], groups: int, budget: int) -> StepPlan:
    """The planner under test."""
    return plan_step(lengths, groups, budget, QWEN3_4B)


def choose_degree(
    shape: Shape, cluster: Cluster, steps: Sequence[Mapping[int, int]], tokens_per_gpu: int
) -> int:
    """Returns the sequence-parallel degree for ``steps`` of rows (row -> tokens), with full
    checkpointing.

    A group of ``degree`` ranks shares micro-batches of ``tokens_per_gpu`` x ``degree`` tokens.
    Raises UserError when a step has too few rows for every degree.
    """
    layouts = {}
    rows = min(map(len, steps))
    for degree in degrees(shape, cluster):
        groups = cluster.ranks // degree
        if groups > rows:
            continue
        plans = [plan_step(lengths, groups, tokens_per_gpu * degree, shape) for lengths in steps]
        setup = Setup(cluster.ranks, degree, tokens_per_gpu, "full")
        layouts[degree] = timing(shape, setup, cluster, plans, steps)
    if not layouts:
        raise UserError(
            f"{cluster.ranks} ranks are too many for batches of {rows} rows: use fewer, or a "
            "larger train.batch_size"
        )
    best = min(eligible(list(layouts.values())), key=lambda layout: layout.step.total)
    return next(degree for degree, layout in layouts.items() if layout is best)


def ceiling(lengths: dict[int, int], groups: int) -> float:
    """Returns the most that ``StepPlan.efficiency`` can be: a step takes as long as its longest
    row.
    """
    flops = training_flops(QWEN3_4B, list(lengths.values()))
    return min(1.0, float(flops.sum() / groups / flops.max()))


def measure(clip: str, batch: int, ranks: int, draws: int) -> list[Result]:
    """Every degree at which no group is without rows, and the planner's choice among them."""
    steps = [draw(CLIPS[clip], batch, seed) for seed in range(draws)]
    results, case, best = [], f"{clip}/{batch}/ranks{ranks}", {}
    cluster = Cluster(GPUS["a100-40"], ranks // GPUS_PER_NODE, GPUS_PER_NODE, NETWORK)
    for degree in degrees(QWEN3_4B, cluster):
        groups, budget = ranks // degree, CLIPS[clip] * degree
        if groups > batch:
            continue
        figures = {
            name: fmean(plan(step, groups, budget).efficiency for step in steps)
            for name, plan in (("ours", ours), (STOCK, stock), (RAY, ray))
        }
        best[degree] = figures["ours"]
        for peer in (STOCK, RAY):
            limit = (
                0.87 if (clip, batch, ranks, degree, peer) == ("16K", 64, 16, 1, STOCK) else None
            )
            if (ranks, degree, peer) == (16, 1, RAY):
                limit = figures[RAY]
            results.append(
                Result(
                    f"{case}/sp{degree}",
                    "balance",
                    "mean/max",
                    figures["ours"],
                    figures[peer],
                    peer,
                    limit,
                )
            )
    if best:
        chosen = choose_degree(QWEN3_4B, cluster, steps[:FORECAST], CLIPS[clip])
        most = fmean(ceiling(step, ranks // max(best)) for step in steps)
        limit = 0.92 if batch == 16 else 0.97
        reason = (most, f"the longest row's most at sp{max(best)}") if most < limit else ()
        limit = min(limit, 0.99 * most)
        results.append(
            Result(
                f"{case}/plan",
                f"balance at sp{chosen}",
                "mean/max",
                best[chosen],
                *reason,
                limit=limit,
            )
        )
    return results


def main() -> None:
    """Measures all cases."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    cases = list(itertools.product(CLIPS, BATCHES, RANKS))
    cases = cases[: int(sys.argv[2])] if len(sys.argv) > 2 else cases
    results = [result for case in cases for result in measure(*case, draws)]
    publish("bench-balance", results)
    for r in results:
        if r.limit is not None and r.ours is not None and r.ours < r.limit:
            print(f"  missed: {r.case} {r.ours:.3f}, limit {r.limit}")


if __name__ == "__main__":
    main()
