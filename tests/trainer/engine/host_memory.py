"""Host memory of ranks that load a model.

    python -m tests.trainer.engine.host_memory FOLDER RANKS...

measures each number of ranks, forked from this process.

FOLDER holds small.yaml and large.yaml, frozen configurations. Each rank leaves
FOLDER/RANKS/rankN.json: bytes.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import torch.distributed as dist

from common.files import write_json
from tests.trainer.engine.ranks import forked
from trainer.engine.build import build_engine
from trainer.process import process_group
from trainer.recipe import load as configs


def anonymous() -> int:
    """Bytes of this process that no file backs; what it shares with others counts in proportion."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("smaps_rollup has no Pss_Anon")


class Peak:
    """Follows ``anonymous`` in a thread while the context lasts; ``bytes`` is the most above the
    beginning.
    """

    def __enter__(self) -> Peak:
        # A collection writes to every object, and so takes a copy of what the fork shares: now, not
        # while the peak is followed.
        gc.collect()
        self.begin = self.most = anonymous()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.bytes = self.most - self.begin

    def _follow(self) -> None:
        while not self.ended.wait(0.001):
            self.most = max(self.most, anonymous())


def rank(number: int, folder: Path, world: int) -> None:
    """Builds the engine of the small model, so that code and buffers are there, then that of the
    large one.
    """
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    place = folder / str(world)
    process_group.join("cpu", f"file://{place}/meeting")
    build_engine(configs.read(folder / "small.yaml"), total_steps=10)
    dist.barrier()
    with Peak() as peak:
        engine = build_engine(configs.read(folder / "large.yaml"), total_steps=10)
    shards = sum(p.to_local().nbytes for p in engine.module.parameters())
    write_json(place / f"rank{number}.json", {"peak": peak.bytes, "shards": shards})
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path, worlds: list[int]) -> int:
    """Returns 0 when every rank ended well."""
    for world in worlds:
        (folder / str(world)).mkdir()
        if any(forked(world, rank, folder, world)):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), list(map(int, sys.argv[2:]))))
