"""Runs training steps of the real engine on paper and writes what they did.

    python -m tests.cuda.run FOLDER      (with the variables of ``paper.environment``)

runs the cases of FOLDER/cases.json, each in a process forked from here, and leaves FOLDER/N.json
for each.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import multiprocessing
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data_prep.tokenizer import tokenizers
from tests.cuda import fakes, paper, qlora
from tests.cuda.cases import Case, documents
from tests.cuda.operators import Operators
from tests.trainer.planning.footprint import LiveBytes
from trainer.batching.packing import Packed
from trainer.engine import loss as losses
from trainer.engine.build import build_engine
from trainer.recipe import load as configs

AT_A_TIME = 2


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Measures the second step of ``case``; the first one creates the optimizer's state."""
    paper.join(case.ranks)
    config = _configured(case, folder)
    mode = fakes.Fakes()
    fakes.install(mode)
    if case.recipe != "sft":
        qlora.install(mode)
    engine = build_engine(config, total_steps=100)
    budget = config.train.max_tokens_per_gpu * case.degree
    micro_batches = [engine.pack([_row(n) for n in lengths]) for lengths in documents(budget)]
    counted, waits = Operators(), ctypes.CDLL(os.environ["LD_PRELOAD"]).paper_waits
    _tell_phases(engine, counted)
    with mode, engine.train_mode(), Operators():
        engine.train_step(micro_batches, 12345)
    gc.collect()
    before = waits()
    with mode, engine.train_mode(), LiveBytes("cuda") as live, counted:
        engine.train_step(micro_batches, 12345)
        gradients = _kinds(p.grad for p in engine.module.parameters() if p.requires_grad)
    trained, frozen = (
        [p for p in engine.module.parameters() if p.requires_grad is wanted]
        for wanted in (True, False)
    )
    state = [
        x
        for of in engine.optimizer.state.values()
        for x in of.values()
        if isinstance(x, torch.Tensor)
    ]
    result = {
        "case": asdict(case),
        "loaded": fakes.loaded,
        "parameters": _kinds(trained),
        "frozen": _kinds(frozen),
        "buffers": _kinds(engine.module.buffers()),
        "gradients": gradients,
        "moments": _kinds(x for x in state if x.dim()),  # not the count of steps
        "reads": counted.reads,
        "uploads": counted.uploads,
        "waits": waits() - before,
        "peak": live.peak,
        "operators": [[*key, *dataclasses.astuple(total)] for key, total in counted.totals.items()],
    }
    # Afterwards the root's weights stay gathered.
    with mode, engine.eval_mode(), Operators() as validation:
        for packed in micro_batches[:2]:
            engine.evaluate(packed)
    return result | {"validation_reads": validation.reads}


def _tell_phases(engine: Any, counted: Operators) -> None:
    """Lets ``counted`` know what ``engine`` is at: the loss, the optimizer, how many pairs of
    tokens attend.
    """
    forward = engine.forward

    def forward_on(packed: Packed, scale: float = 1.0) -> Any:
        counted.pairs = sum(n * (n + 1) / 2 for n in packed.lengths)
        return forward(packed, scale)

    engine.forward = forward_on
    engine.optimizer_step = counted.during("optimizer", engine.optimizer_step)
    losses.linear_cross_entropy = counted.during("loss", losses.linear_cross_entropy)


def _kinds(tensors: Any) -> list[list[str]]:
    return sorted({(str(t.dtype), str(t.device)) for t in tensors})


def _configured(case: Case, folder: Path) -> Any:
    places = [f"run.root={folder}/runs", f"data.dir={folder}/data", f"model.path={folder}/model"]
    config = configs.load(
        f"{case.recipe}_{case.size}", ["data.source=none", *places, *case.overrides]
    )
    words = tokenizers.trained(["some text"])
    for place in (config.verl.model.tokenizer_path, config.model.path):
        words.save_pretrained(str(place))
    shape = case.shape
    paper.write_model(
        Path(config.model.path),
        {
            "num_hidden_layers": shape.layers,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "vocab_size": shape.vocabulary,
            "tie_word_embeddings": shape.tied,
            "max_position_embeddings": 40960,
        },
    )
    return config


def _row(length: int) -> dict[str, torch.Tensor]:
    ones = torch.ones(length, dtype=torch.int64)
    return {"input_ids": ones, "loss_mask": ones}


def _into(file: Path, case: Case) -> None:
    torch.cuda._is_in_bad_fork = lambda: (
        False
    )  # a device of paper has no state that a fork could spoil
    folder = file.with_suffix("")
    folder.mkdir()
    with file.with_suffix(".log").open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    file.write_text(json.dumps(measure(case, folder)))


def main(folder: Path) -> None:
    """Runs the cases of ``folder``, as many at a time as there are cores for them."""
    context = multiprocessing.get_context("fork")
    running: list[Any] = []
    for i, case in enumerate(json.loads((folder / "cases.json").read_text())):
        if len(running) == AT_A_TIME:
            running.pop(0).join()
        running.append(context.Process(target=_into, args=(folder / f"{i}.json", Case.of(case))))
        running[-1].start()
    for process in running:
        process.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
