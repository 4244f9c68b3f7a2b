"""A rehearsal on two ranks: what is trained, and what counts as a failure."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import StageFailed
from common.files import read_json
from tests.conftest import ROOT, environment
from trainer.rehearsal.failure import Failure
from trainer.rehearsal.rehearse import _check, document_lengths
from trainer.run.folder import Run

LONGEST, BUDGET = 256, 512
WORDS = (
    "train.sequence_parallel=2",
    f"train.max_tokens_per_gpu={BUDGET // 2}",
    "train.fused_optimizer=true",
    "train.prefetch=true",
    "train.checkpointing=selective",
)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory, short_run: Path) -> Path:
    """The folder with what tests.trainer.rehearsal.ranks leaves."""
    folder = tmp_path_factory.mktemp("rehearsal")
    words = ("tiny", f"data.dir={short_run.parents[1] / 'data'}", f"run.root={folder}", *WORDS)
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.rehearsal.ranks", str(folder), *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("[0, 0] [1, 1]\n"), done.stdout + done.stderr
    return folder


def test_two_layers_train_two_steps_of_full_micro_batches(rehearsed: Path) -> None:
    ranks = [torch.load(rehearsed / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert ranks[0]["losses"] == ranks[1]["losses"]
    first, second = zip(*(rank["seen"] for rank in ranks), strict=True)
    for (lengths, one, tokens, layers), (shared, other, *_) in (first, second):
        assert shared == lengths, "ranks that share rows have the same ones"
        assert layers == 2 and one + other == tokens
        assert [sum(micro) for micro in lengths] == [BUDGET, BUDGET]
        assert all(len({*micro}) > 1 and max(micro) <= LONGEST for micro in lengths)
    assert first[0][0] != second[0][0]
    vocabulary = read_json(rehearsed / "tiny" / "base" / "config.json")["vocab_size"]
    assert ranks[0]["losses"] == pytest.approx([math.log(vocabulary)] * 2, abs=0.2)


def test_a_rehearsal_leaves_nothing_but_the_base_model(rehearsed: Path) -> None:
    run = Run(rehearsed / "tiny")
    assert [p.name for p in run.root.iterdir() if not p.name.startswith(".")] == ["base"]
    assert (run.attempts, run.config.exists()) == ([], False)


def test_each_rank_says_what_failed(rehearsed: Path) -> None:
    for rank in range(2):
        log = (rehearsed / f"broken{rank}").read_text()
        failure = Failure.first(log)
        assert failure and failure.place == f"rank {rank} on n{rank}", log
        assert failure.error.startswith("step 1: the gradient norm is nan, the loss nan")


@pytest.mark.parametrize(
    ("loss", "norm", "said"),
    [
        (11.9, math.inf, "step 1: the gradient norm is inf"),
        (math.nan, 1.0, "step 1: the loss is nan"),
        (7.0, 1.0, "step 1: the loss is 7.000; random weights give about 11.93"),
        (12.75, 1.0, None),
    ],
)
def test_numbers_that_random_weights_do_not_give_are_a_failure(
    loss: float, norm: float, said: str | None
) -> None:
    if said is None:
        _check(0, loss, norm, 151_936)
        return
    with pytest.raises(StageFailed, match=said):
        _check(0, loss, norm, 151_936)


@pytest.mark.parametrize(("tokens", "longest"), [(20480, 20480), (40960, 20480), (4096, 256)])
def test_documents_fill_a_micro_batch(tokens: int, longest: int) -> None:
    draw = random.Random(0)
    made = [document_lengths(tokens, longest, draw) for _ in range(50)]
    assert {sum(lengths) for lengths in made} == {tokens}
    assert min(len(lengths) for lengths in made) >= 2
    assert max(max(lengths) for lengths in made) <= longest
    assert made[0] != made[1]
