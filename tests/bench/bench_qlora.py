"""QLoRA on one GPU in the shape of Qwen3-4B: ours against plain TRL with the recipe's settings.

    python -m tests.bench.bench_qlora       (exit 3 without a CUDA device; 2 where trl is not installed)

Both train the same random model on the same rows in the same steps of 16, TRL one row at a time, ours as many as 4,096
tokens hold: first rows that fill 4,096 tokens each, then grade-school rows (lognormal, median 250).
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import torch

from tests.bench.bench_gpu import PARITY, Bench, Setting
from tests.bench.cases import OURS, TRL, Case, peers
from tests.bench.table import Result, publish
from trainer.flops import peak_flops
from trainer.planning.basis import KNOWN

LENGTH, ROWS = 4096, 16
MEDIANS = {"rows of 4,096 tokens": 10**9, "rows of about 250 tokens": 250}
"""Of the rows before they are clipped at ``LENGTH``."""
MEMORY_AIM = 12.0
"""GB: the published run's card."""
DEADLINE = 280
"""Seconds for each kind of rows."""


def compare(setting: Setting, name: str, folder: Path) -> list[Result]:
    """Ours beside TRL: rows and tokens a second, memory, and the first step's loss."""
    bench = Bench(setting, folder, "bench-qlora", DEADLINE)
    if reason := bench.process(Case("base", "the model", ("tests.bench.contenders", "base")), DEADLINE):
        raise RuntimeError(f"the random model could not be written: {reason}")
    trl = next(case for case in peers() if case.name == "trl")
    for case in (OURS, trl):
        bench.run(case)
    ours, theirs = (bench.measured.get(case.name) for case in (OURS, trl))
    peer = f"{trl.label}: {bench.failed[trl.name]}" if trl.name in bench.failed else trl.label
    mean = sum(bench.lengths) / len(bench.lengths)
    rates = [m.rate / mean if m else None for m in (ours, theirs)]
    apart = abs(ours.loss - theirs.loss) / theirs.loss if ours and theirs else math.nan
    return [
        Result(name, "rows/s", "1/s", *rates, peer, rates[1]),
        Result(name, "peak memory", "GB", *(m.memory if m else None for m in (ours, theirs)), peer, MEMORY_AIM),
        Result(name, "loss parity", "relative", apart, limit=PARITY),
    ]


def main() -> int:
    """Prints the table."""
    if not torch.cuda.is_available():
        print("bench-qlora needs a CUDA device, and there is none here.")
        return 3
    if not TRL:
        print("bench-qlora compares with trl, which is not installed: pip install trl==0.27.0")
        return 2
    peak, shape = peak_flops(torch.cuda.get_device_name()), KNOWN["Qwen/Qwen3-4B-Base"]
    results = []
    for name, median in MEDIANS.items():
        setting = Setting("cuda", "bf16", shape, LENGTH, median, ROWS, peak, recipe="qlora_gsm8k_4b")
        with tempfile.TemporaryDirectory() as folder:
            results += compare(setting, name, Path(folder))
    publish("bench-qlora", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
