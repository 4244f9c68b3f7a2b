"""Checks across the ranks of one srun step: presence, equal software and data, clocks, all-reduce
bandwidth.

The ranks meet in torch's key-value store on rank 0, which shows which ranks are missing; a process
group would only time out.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from omegaconf import DictConfig

from common.errors import first_line
from trainer.doctor import devices
from trainer.doctor.findings import FATAL, OK, WARNING, Finding, names, this_node
from trainer.planning.cluster import LINK_SHARE
from trainer.planning.workload import cluster_of
from trainer.process import gpu_binding

CLOCK_SECONDS = 2.0
"""Maximum difference between the nodes' clocks, which decide when a job ends."""
ALL_REDUCE_BYTES = {"cuda": 256 * 2**20, "cpu": 4 * 2**20}
PRODUCT_SIZE = {"cuda": 8192, "cpu": 256}
"""Rows and columns of the matrices whose product measures a rank's speed."""
LEAVING_SECONDS = 30


@dataclass(frozen=True)
class Note:
    """One rank's report on itself."""

    rank: int
    host: str
    facts: dict[str, str]
    """Facts that must be the same on all nodes."""
    findings: list[Finding]
    gpu: str = ""
    """Identifier of the rank's GPU, unique on its node; empty without a GPU."""

    def json(self) -> str:
        """Returns the note as one JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Note:
        """Returns the note that ``json`` wrote."""
        values = json.loads(text)
        return cls(
            values["rank"],
            values["host"],
            values["facts"],
            [Finding(**f) for f in values["findings"]],
            values["gpu"],
        )


@dataclass(frozen=True)
class Meeting:
    """The rendezvous of this rank with the others, from torch's rendezvous variables."""

    rank: int
    world: int
    address: str
    port: int
    timeout: timedelta

    @classmethod
    def of(cls, place: dict[str, str], minutes: float) -> Meeting:
        """Returns the meeting at ``place`` (from ``process_group.slurm_environment``), which waits
        up to ``minutes``.
        """
        return cls(
            int(place["RANK"]),
            int(place["WORLD_SIZE"]),
            place["MASTER_ADDR"],
            int(place["MASTER_PORT"]),
            timedelta(minutes=minutes),
        )

    def open(self) -> Any | Finding:
        """Returns the store, or a finding that says why this rank cannot reach it."""
        if self.rank == 0 and not is_free(self.port):
            return busy(self.port)
        import torch.distributed as dist

        try:
            return dist.TCPStore(
                self.address,
                self.port,
                self.world,
                self.rank == 0,
                self.timeout,
                wait_for_workers=False,
            )
        except dist.DistError as e:
            text = f"rank {self.rank} on {this_node()} cannot reach {self.address}:{self.port}"
            fix = f"use a node that reaches {self.address} (sbatch --exclude={this_node()})"
            return Finding(FATAL, "peers", f"{text}: {first_line(e)}", fix)

    def exchange(self, store: Any, note: Note) -> tuple[list[Note], list[int], bool]:
        """Returns (notes of the ranks that arrived, ranks that did not arrive, whether all GPUs can
        be used).

        Collective over the ranks that arrived; only rank 0 gets the notes.
        """
        import torch.distributed as dist

        notes: list[Note] = []
        store.set(f"note/{self.rank}", note.json())
        if self.rank == 0:
            keys = [f"note/{rank}" for rank in range(self.world)]
            with contextlib.suppress(dist.DistStoreError):
                store.wait(keys, self.timeout)
            here = [rank for rank, key in enumerate(keys) if store.check([key])]
            notes = [Note.read(store.get(keys[rank]).decode()) for rank in here]
            able = not any(
                f.level == FATAL and f.what in devices.CHECKS
                for note in notes
                for f in note.findings
            )
            able = able and not shared_gpus(notes)
            store.set("verdict", json.dumps([sorted({*range(self.world)} - {*here}), able]))
        store.wait(["verdict"], 2 * self.timeout)
        absent, able = json.loads(store.get("verdict"))
        return notes, absent, able

    def measure(self, store: Any, config: DictConfig) -> tuple[list[Finding], list[float]]:
        """Returns (findings on clocks and on an all-reduce between all ranks, the seconds that each
        rank takes for the same matrix product). Collective.
        """
        import torch
        import torch.distributed as dist

        try:
            if config.device == "cuda":
                torch.cuda.set_device(gpu_binding.local_device())
            dist.init_process_group(
                "gloo" if config.device == "cpu" else "cpu:gloo,cuda:nccl",
                store=dist.PrefixStore("group", store),
                rank=self.rank,
                world_size=self.world,
                timeout=self.timeout,
            )
            clocks, products = torch.zeros(2, self.world, dtype=torch.float64)
            dist.all_reduce(
                torch.zeros(1)
            )  # a barrier, so that all ranks read their clocks together
            clocks[self.rank] = time.time()
            dist.all_reduce(clocks)
            seconds = _all_reduce_seconds(config.device)
            products[self.rank] = _product_seconds(config.device)
            dist.all_reduce(products)
            dist.destroy_process_group()
        except RuntimeError as e:  # torch's, gloo's and NCCL's
            fix = (
                "set NCCL_DEBUG=INFO to see the interface, and NCCL_SOCKET_IFNAME or "
                "GLOO_SOCKET_IFNAME to choose it"
            )
            return [Finding(FATAL, "all-reduce", first_line(e), fix)], []
        spread = (clocks.max() - clocks.min()).item()
        findings = [clock(spread), bandwidth(config, self.world, seconds)]
        return findings, products.tolist()

    def leave(self, store: Any, ranks: int) -> None:
        """Leaves the store; rank 0, which hosts it, waits up to 30 s for all ``ranks`` that arrived
        to leave.
        """
        left = store.add("left", 1)
        deadline = time.monotonic() + LEAVING_SECONDS
        while self.rank == 0 and left < ranks and time.monotonic() < deadline:
            time.sleep(0.05)
            left = store.add("left", 0)


def is_free(port: int) -> bool:
    """Returns whether a server can listen on ``port`` of this machine."""
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("", port))
        except OSError:
            return False
    return True


def busy(port: int) -> Finding:
    """Returns the finding that ``port`` is in use."""
    text = f"{port}, the ranks' rendezvous on {this_node()}, is in use"
    return Finding(
        FATAL,
        "port",
        text,
        f"ss -ltnp 'sport = {port}' shows its owner; the next job gets another port",
    )


def compare(notes: Sequence[Note]) -> Iterator[Finding]:
    """Yields a finding for each fact that differs between nodes; one rank per node states facts."""
    notes = [note for note in notes if note.facts]
    for key in sorted({key for note in notes for key in note.facts}):
        hosts: dict[str, list[str]] = {}
        for note in notes:
            known = hosts.setdefault(note.facts.get(key, "absent"), [])
            if note.host not in known:
                known.append(note.host)
        if len(hosts) > 1:
            text = "; ".join(f"{value} on {names(nodes)}" for value, nodes in sorted(hosts.items()))
            fix = (
                "use one environment, checkout, model and dataset on all nodes (a shared path, or "
                "the same copy on each)"
            )
            yield Finding(FATAL, "nodes differ", f"{key}: {text}", fix)


def missing(
    ranks: Sequence[int],
    world: int,
    notes: Sequence[Note],
    timeout: timedelta,
    expected: Mapping[str, int],
) -> dict[str, Finding]:
    """Returns the findings on ``ranks`` that did not arrive, by node; a single one without a node
    if ``expected``, the number of ranks by node, does not determine it.
    """
    came, late = Counter(note.host for note in notes), f"within {timeout.total_seconds():,.0f} s"
    fix = "sinfo -R; sbatch --exclude=NODE leaves a node out"
    lacking = {node: count for node, count in expected.items() if came[node] < count}
    if came.keys() <= expected.keys() and lacking:
        return {
            node: Finding(
                FATAL, "peers", f"no message from {count - came[node]} of {count} ranks {late}", fix
            )
            for node, count in lacking.items()
        }
    heard = names(sorted({note.host for note in notes}))
    noun = "rank" if len(ranks) == 1 else "ranks"
    who = f"{noun} {', '.join(map(str, ranks))} of {world}"
    return {"": Finding(FATAL, "peers", f"no message from {who} {late}; present: {heard}", fix)}


def clock(spread: float) -> Finding:
    """Returns the finding on clocks; ``spread`` is the seconds between the earliest and the latest
    one.
    """
    text = f"the nodes' clocks agree within {max(spread, 0.001):.3f} s"
    if spread > CLOCK_SECONDS:
        return Finding(
            WARNING,
            "clock",
            text,
            "chronyc tracking shows which node is off; tell your administrators",
        )
    return Finding(OK, "clock", text)


def bandwidth(config: DictConfig, world: int, seconds: float) -> Finding:
    """Returns the finding on an all-reduce of ``seconds``, as bus bandwidth (the formula of
    nccl-tests).
    """
    size, cluster = ALL_REDUCE_BYTES[config.device], cluster_of(config)
    found = 2 * (world - 1) / world * size / seconds
    text = f"{found / 1e9:,.2f} GB/s between {world} ranks ({size // 2**20} MiB, bus bandwidth)"
    assumed = LINK_SHARE * (cluster.network if cluster.nodes > 1 else cluster.gpu.nvlink)
    if config.device == "cuda" and found < assumed / 2:
        fix = (
            "set NCCL_DEBUG=INFO to see the transport; or plan for it: "
            f"cluster.network_gbits={found * 8e-9:,.0f}"
        )
        return Finding(
            WARNING, "all-reduce", f"{text}; the forecast assumes {assumed / 1e9:,.0f} GB/s", fix
        )
    return Finding(OK, "all-reduce", text)


def shared_gpus(notes: Sequence[Note]) -> str:
    """Returns which ranks share a GPU, as text; empty if none do."""
    return gpu_binding.sharing([(note.host, note.gpu) for note in notes if note.gpu])


def _all_reduce_seconds(device: str) -> float:
    import torch
    import torch.distributed as dist

    tensor = torch.zeros(ALL_REDUCE_BYTES[device] // 4, device=device)
    return _seconds(lambda: dist.all_reduce(tensor), device)


def _product_seconds(device: str) -> float:
    import torch

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.ones(PRODUCT_SIZE[device], PRODUCT_SIZE[device], device=device, dtype=dtype)
    return _seconds(lambda: matrix @ matrix, device)


def _seconds(work: Callable[[], Any], device: str) -> float:
    """Returns the median of five times, after two to warm up."""
    import torch

    times = []
    for _ in range(7):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return median(times[2:])
