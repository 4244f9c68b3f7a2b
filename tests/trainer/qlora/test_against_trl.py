"""Our QLoRA against TRL's SFTTrainer on the same rows: the same losses, though ours packs and TRL
does not.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gpu import rows
from tests.gpu.cases import chosen
from tests.gpu.runner import Runner
from tests.gpu.setting import ADAPTER_RECIPE, Load, rehearsal
from tests.gpu.training import FIRST, LAST
from trainer.batching.flops import Shape

CONSTANT = (
    "train.min_lr_ratio=1.0",
    "train.warmup_steps=null",
    "train.warmup_ratio=0.0",
    "train.lr=1e-2",
)
TOLERANCE = 2e-4
"""A number of the optimizer's eight bits falls on the other side of a border now and then."""


@pytest.mark.slow
def test_five_steps_have_the_losses_of_trl(tmp_path: Path) -> None:
    """The fifth loss follows from the steps before it."""
    load = Load(ADAPTER_RECIPE, 2, length=200, median=60, rows=8)
    # With transformers' own spread of 0.02 a frozen head leaves little to learn in five steps.
    setting = replace(
        rehearsal(),
        shape=Shape(2, 128, 256, 4, 2, 32, 1024, tied=True),
        loads={"adapters": load},
        warm=2,
        timed=3,
        spread=0.1,
    )
    out, work = tmp_path / "check.jsonl", tmp_path / "work"
    work.mkdir()
    rows.append(out, {rows.RUN: {}})
    model, *trainers = chosen(["qlora", "trl-qlora"], short=True)
    cases = [model, *(replace(case, overrides=CONSTANT) for case in trainers)]
    Runner(setting, work, out, limit=600, end=time.monotonic() + 2000).run(cases)
    found = {row.metric: row for row in rows.read(out).rows if row.case == "trl-qlora"}
    for metric in (FIRST, LAST):
        assert found[metric].ours == pytest.approx(found[metric].peer, abs=TOLERANCE)
