"""The QLoRA plan against the live bytes of a real small step, and the published card's figures."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.files import read_json
from data_prep.tokenizer import tokenizers
from tests.conftest import ROOT
from trainer.batching.flops import Shape
from trainer.planning import qlora_memory
from trainer.planning.memory import Setup
from trainer.recipe import load as configs
from trainer.run import base_model

LENGTHS = [300, 212]
WIDE = [f"model.init.{key}" for key in ("hidden_size=256", "intermediate_size=1024")]


@pytest.mark.parametrize(
    ("checkpointing", "precision"), [("none", "fp32"), ("full", "fp32"), ("full", "bf16")]
)
def test_memory_forecast_is_within_a_tenth_of_a_real_step(
    checkpointing: str, precision: str, tmp_path: Path
) -> None:
    overrides = [f"train.checkpointing={checkpointing}", f"train.precision={precision}"]
    where = [f"run.root={tmp_path}/runs", f"data.dir={tmp_path}/data"]
    config = configs.load("qlora_tiny", [*where, *WIDE, *overrides])
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    configs.write(config, tmp_path / "config.yaml")
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    cases = json.dumps([[str(tmp_path), LENGTHS]])
    subprocess.run(
        [sys.executable, "-m", "tests.trainer.planning.footprint", cases],
        env=os.environ | alone,
        cwd=ROOT,
        check=True,
    )
    shape = Shape.of(read_json(Path(config.model.path) / "config.json"))
    forecast = sum(
        qlora_memory.peak(
            replace(shape, lora_rank=config.train.lora_rank),
            Setup(
                ranks=1,
                sequence_parallel=1,
                tokens=sum(LENGTHS),
                checkpointing=checkpointing,
                compute={"bf16": 2, "fp32": 4}[precision],
                sdpa=True,
            ),
        ).values()
    )
    measured = read_json(tmp_path / "rank0.json")["peak"]
    print(f"{checkpointing} {precision}: forecast {forecast / 1e6:.2f}, live {measured / 1e6:.2f}")
    assert forecast == pytest.approx(measured, rel=0.1)
