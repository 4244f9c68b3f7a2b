"""Packs a step's rows into micro-batches so that data-parallel groups wait little for each other.

FSDP gathers parameters layer by layer, so all groups run micro-step m together, and the step takes
the sum over m of the slowest group's time. Groups wait because attention makes a long row cost more
than short rows with the same number of tokens, and the token budget keeps short rows from adding up
to a long one. So rows of similar length share a micro-step, and the last micro-steps spread the
remaining rows.

The cost has no lower bound for parameter communication: the micro-batch that hides it has some
hundred tokens inside a node and many thousand over a slow network, so no single number is right.
But an additional micro-step, whose first gather is never hidden, must shorten the step by more than
the error of the cost model.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from trainer.batching.flops import Shape, training_flops

MicroBatches = list[list[list[int]]]
"""[group][micro-batch] -> rows; every group has the same number of micro-batches, some may be
empty.
"""

MICRO_STEP = 0.02  # of the step's mean time: what an additional micro-step must save
MOVES, GAIN = 300, 1e-6  # local search ends after MOVES, or when no move shortens the step by GAIN


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of one optimizer step."""

    micro_batches: MicroBatches
    tokens: int
    """Tokens of all rows."""
    flops: float
    """Training FLOPs of all rows."""
    efficiency: float
    """The groups' mean FLOPs over those of the slowest group summed over micro-steps, 0 to 1."""

    @staticmethod
    def of(
        micro_batches: MicroBatches, lengths: Mapping[int, int], flops: Mapping[int, float]
    ) -> StepPlan:
        """Returns the plan with its figures; ``lengths`` and ``flops`` are tokens and FLOPs by
        row.
        """
        loads = np.array(
            [[sum(flops[row] for row in rows) for rows in group] for group in micro_batches]
        )
        return StepPlan(
            micro_batches,
            tokens=sum(lengths.values()),
            flops=float(np.sum(list(flops.values()))),
            efficiency=float(loads.sum() / len(micro_batches) / loads.max(axis=0).sum()),
        )

    @property
    def micro_steps(self) -> int:
        """Number of micro-batches of each group."""
        return len(self.micro_batches[0])


def row_flops(lengths: Mapping[int, int], shape: Shape) -> dict[int, float]:
    """Returns the training FLOPs of each row of ``lengths`` (row -> tokens)."""
    flops = training_flops(shape, list(lengths.values())).tolist()
    return dict(zip(lengths, flops, strict=True))


def plan_step(lengths: Mapping[int, int], groups: int, budget: int, shape: Shape) -> StepPlan:
    """Packs the rows of one optimizer step (row -> tokens) into micro-batches for ``groups``
    data-parallel groups.

    ``budget``: tokens of one micro-batch over all ranks of a group (train.max_tokens_per_gpu times
    the sequence-parallel degree). A pure function; the micro-batches do not depend on the order of
    ``lengths``, so that every rank computes the same ones. The heaviest micro-step comes first, so
    that too little memory shows at once. Raises UserError when a row is longer than the budget.
    """
    assert lengths, "a step has rows"
    rows = sorted(lengths, key=lambda row: (-lengths[row], row))
    if lengths[rows[0]] > budget:
        raise UserError(
            f"row {rows[0]} has {lengths[rows[0]]} tokens, a micro-batch holds {budget} "
            "(train.max_tokens_per_gpu times the sequence-parallel degree): raise "
            "train.max_tokens_per_gpu"
        )
    flops = row_flops(lengths, shape)
    step = _Step(
        np.array([lengths[row] for row in rows], dtype=np.int64),
        np.array([flops[row] for row in rows]),
        groups,
        budget,
    )
    bins = step.improve(step.start())
    load = step.loads(bins)
    members: list[list[int]] = [[] for _ in load]
    for row, b in zip(rows, bins.tolist(), strict=True):
        members[b].append(row)
    micros = math.ceil(np.count_nonzero(load) / groups)
    heaviest_first = np.argsort(-load, kind="stable")[: micros * groups]
    micro_batches = [[members[b] for b in heaviest_first[group::groups]] for group in range(groups)]
    return StepPlan.of(micro_batches, lengths, flops)


@dataclass(frozen=True)
class _Step:
    """Assigns rows, in descending length, to bins: the heaviest ``groups`` bins form a micro-step,
    and so on.
    """

    tokens: np.ndarray  # [rows]
    flops: np.ndarray  # [rows]
    groups: int
    budget: int

    def loads(self, bins: np.ndarray) -> np.ndarray:
        """Returns the FLOPs of each bin under ``bins`` ([rows] -> bin); empty bins fill up the last
        micro-step.
        """
        micros = int(bins.max(initial=0)) // self.groups + 1
        return np.bincount(bins, self.flops, micros * self.groups)

    @property
    def mean(self) -> float:
        """FLOPs per group if all were equal."""
        return float(self.flops.sum()) / self.groups

    def cost(self, bins: np.ndarray) -> float:
        """Returns the FLOPs of each micro-step's heaviest bin, summed, plus ``MICRO_STEP`` x mean
        per micro-step.
        """
        slowest = np.sort(self.loads(bins))[:: -self.groups]
        return float(slowest.sum()) + MICRO_STEP * self.mean * np.count_nonzero(slowest)

    def start(self) -> np.ndarray:
        """Returns the cheapest of: 0, 1, 2, 4, ... first micro-steps filled to their longest row,
        the rest spread.
        """
        left = np.arange(len(self.tokens))
        best = self.spread(left, self.tokens)
        bins, filled = np.empty_like(left), 0
        while True:
            if filled & (filled - 1) == 0 or not len(left):
                bins[left] = filled * self.groups + self.spread(left, self.flops)
                best = min(best, bins.copy(), key=self.cost)
            if not len(left):
                return best
            bins[left] = self.fill(left, self.flops, self.groups, level=self.flops[left[0]])
            taken = bins[left] >= 0
            bins[left[taken]] += filled * self.groups
            left, filled = left[~taken], filled + 1

    def spread(self, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Returns bins for ``rows``: longest first into the lightest bin, in the fewest micro-steps
        that hold them.
        """
        micros = max(1, math.ceil(self.tokens[rows].sum() / (self.budget * self.groups)))
        while (bins := self.fill(rows, weight, micros * self.groups)).min(initial=0) < 0:
            micros += 1
        return bins

    def fill(
        self, rows: np.ndarray, weight: np.ndarray, count: int, level: float = math.inf
    ) -> np.ndarray:
        """Returns for each row the lightest of ``count`` bins with room that stays within
        ``level``; -1 for no bin.

        A bin without room waits outside the heap until the rows, which come longest first, are
        short enough.
        """
        lightest = [(0.0, b, self.budget) for b in range(count)]
        waiting: list[tuple[int, float, int]] = []
        chosen = []
        for length, heavy in zip(self.tokens[rows].tolist(), weight[rows].tolist(), strict=True):
            while waiting and -waiting[0][0] >= length:
                room, load, b = heapq.heappop(waiting)
                heapq.heappush(lightest, (load, b, -room))
            while lightest and lightest[0][2] < length:
                load, b, room = heapq.heappop(lightest)
                heapq.heappush(waiting, (-room, load, b))
            if lightest and lightest[0][0] + heavy <= level:
                load, b, room = lightest[0]
                heapq.heapreplace(lightest, (load + heavy, b, room - length))
                chosen.append(b)
            else:
                chosen.append(-1)
        return np.array(chosen, dtype=np.int64)

    def improve(self, bins: np.ndarray) -> np.ndarray:
        """Moves rows out of a micro-step's heaviest bin, or swaps them for lighter ones, while the
        step gets shorter.

        Takes the best gain first. A move is a swap with an empty row, of which every bin has one.
        Returns the bins.
        """
        rows, load = len(bins), self.loads(bins)
        count = len(load)
        flops = np.append(self.flops, np.zeros(count))
        tokens = np.append(self.tokens, np.zeros(count, dtype=np.int64))
        where = np.append(bins, np.arange(count))
        room = self.budget - np.bincount(where, tokens).astype(np.int64)
        for _ in range(MOVES):
            order = np.argsort(-load, kind="stable")
            micro = np.empty(count, dtype=np.int64)
            micro[order] = np.arange(count) // self.groups
            first = load[order[:: self.groups]]
            second = load[order[1 :: self.groups]] if self.groups > 1 else np.zeros_like(first)
            out = np.flatnonzero(order[micro[where[:rows]] * self.groups] == where[:rows])[:, None]
            here, there = micro[where[out]], micro[where]
            lighter, shorter = flops[out] - flops, tokens[out] - tokens
            ours, theirs = first[here] - lighter, load[where] + lighter
            gain = first[here] - np.where(
                here == there,
                np.maximum(ours, theirs),
                np.maximum(ours, second[here]) + np.maximum(theirs - first[there], 0),
            )
            gain[(lighter <= 0) | (room[where] < shorter)] = 0
            a, b = np.unravel_index(np.argmax(gain), gain.shape)
            if gain[a, b] <= GAIN * first.sum():
                break
            row = out[a, 0]
            source, target = where[row], where[b]
            load[source] -= lighter[a, b]
            load[target] += lighter[a, b]
            room[source] += shorter[a, b]
            room[target] -= shorter[a, b]
            where[row] = target
            if b < rows:
                where[b] = source
        return where[:rows]
