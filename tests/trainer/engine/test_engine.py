"""The engine, packed and sharded, against plain transformers in fp32, one row at a time, without
verl.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig

from common.errors import UserError
from data_prep.tokenizer import tokenizers
from tests.conftest import ROOT
from tests.trainer.engine.ranks import LENGTHS, SUPERVISED, Case, rows
from trainer.engine import attention, build
from trainer.recipe import load as configs
from trainer.run import base_model

ALL, ONE, TWO = [[[0, 1, 2, 3, 4]]], [[[4, 3], [2, 1, 0]]], [[[0, 2], [1]], [[4], [3]]]
FOUR = [[[0], [1]], [[2], []], [[3], []], [[4], []]]
"""[group][micro-batch] -> rows."""
BROKEN = ("exchange", "documents", "shift", "normalisation")
"""No exchange between sequence-parallel ranks; rows that see each other; labels off by one; a wrong
denominator.
"""
LOSS, GRADIENT = 1e-5, 1e-4
"""Tolerances: of a token's loss, and of a gradient relative to its norm."""
MEANS = 1e-5
"""Relative tolerance of mean loss, entropy and token accuracy."""
MISCOUNTED = ("scale", "prompts")
"""The entropy's gradient keeps the loss's scale; prompt tokens count."""
STEP = 1e-6
"""Tolerance of a weight after a step."""
BF16 = 2e-2
"""Both tolerances in bf16, whose numbers have eight bits; the gradient's length is held to half of
it.
"""

CASES = {
    "1rank": Case(1, ALL),
    "1rank-fused": Case(1, ALL, ("train.fused_optimizer=true",)),
    "1rank-deterministic": Case(1, ALL, ("train.deterministic=true",)),
    "2ranks-sp2": Case(2, ONE, ("train.sequence_parallel=2",)),
    "2ranks-untied": Case(
        2, TWO, ("model.init.tie_word_embeddings=false", "train.checkpointing=full")
    ),
    "4ranks-sp2-untied": Case(
        4, TWO, ("train.sequence_parallel=2", "model.init.tie_word_embeddings=false")
    ),
    "4ranks-empty": Case(4, FOUR, ("train.checkpointing=selective", "train.prefetch=true")),
    "4ranks-sp4": Case(4, ONE, ("train.sequence_parallel=4", "train.checkpointing=selective")),
    "2ranks-compiled": Case(
        2,
        TWO,
        ("train.compile=true", "train.fused_optimizer=true", "train.checkpointing=selective"),
    ),
    "bf16": Case(2, TWO, ("train.precision=bf16",)),
    **{what: Case(2, ONE, ("train.sequence_parallel=2",), what) for what in BROKEN},
    **{what: Case(1, ALL, (), what) for what in MISCOUNTED},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which every case has been run."""
    root = tmp_path_factory.mktemp("engine")
    run(root, CASES)
    return root


def run(root: Path, cases: dict[str, Case]) -> None:
    """Runs each in the folder of its name."""
    for name, case in cases.items():
        built(root / name, *case.overrides)
        torch.save(answered(root / name), root / name / "rows.pt")
    (root / "cases.json").write_text(
        json.dumps({name: asdict(case) for name, case in cases.items()})
    )
    common = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, "-m", "tests.trainer.engine.ranks", str(root)],
        env=os.environ | common,
        cwd=ROOT,
        check=True,
    )


def built(folder: Path, *overrides: str) -> None:
    """Leaves a random model and its frozen configuration in ``folder``."""
    config = configs.load(
        "tiny", [f"run.root={folder}/runs", f"data.dir={folder}/data", *overrides]
    )
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    configs.write(config, folder / "config.yaml")


def reference(folder: Path) -> Any:
    """The model in ``folder``, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        configs.read(folder / "config.yaml").model.path, dtype=torch.float32
    )


def answered(folder: Path) -> list[dict[str, torch.Tensor]]:
    """The rows, in which every other token is the model's most likely one, so that about half of
    the supervised tokens and of the others are correct.
    """
    model, made = reference(folder), rows()
    with torch.no_grad():
        for row in made:
            for place in range(1, len(row["input_ids"]), 2):
                logits = model(row["input_ids"][None, :place]).logits[0, -1]
                row["input_ids"][place] = logits.argmax()
    return made


def plain(
    folder: Path,
) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """(token losses of each row, gradient of the mean over all supervised tokens, sums (3,) of
    losses, entropies and correct tokens) of plain transformers.
    """
    model, losses = reference(folder), {}
    sums = torch.zeros(3, dtype=torch.float64)
    made = torch.load(folder / "rows.pt", weights_only=True)
    for i, (row, (_, prompt)) in enumerate(zip(made, LENGTHS, strict=True)):
        logits = model(row["input_ids"][None]).logits[0, prompt - 1 : -1]
        labels = row["input_ids"][prompt:]
        losses[i] = cross_entropy(logits, labels, reduction="none")
        (losses[i].sum() / SUPERVISED).backward()
        entropies = torch.distributions.Categorical(logits=logits).entropy()
        correct = logits.argmax(-1) == labels
        sums += torch.stack([x.detach().double().sum() for x in (losses[i], entropies, correct)])
    return (
        {i: x.detach() for i, x in losses.items()},
        {n: p.grad for n, p in model.named_parameters()},
        sums,
    )


def ours(
    folder: Path,
) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """(token losses by row, gradients, means (3,) of the engine's step, sums (3,) of its
    validation).
    """
    codes = json.loads((folder / "codes.json").read_text())
    assert set(codes) == {0}
    saved = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(len(codes))]
    losses: dict[int, list[torch.Tensor]] = {}
    for part in saved:
        for row, values in part["losses"]:
            losses.setdefault(row, []).append(values)
    return (
        {row: torch.cat(parts) for row, parts in losses.items()},
        saved[0]["grads"],
        torch.tensor([p["means"] for p in saved], dtype=torch.float64).sum(0),
        torch.stack([p["validated"] for p in saved]).sum(0),
    )


def difference(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest relative error of a parameter's gradient, in its norm."""
    assert mine.keys() == theirs.keys()
    return max(((mine[n] - theirs[n]).norm() / theirs[n].norm()).item() for n in theirs)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in (*BROKEN, *MISCOUNTED, "bf16")]
)
def test_token_losses_and_gradients_are_plain_transformers(root: Path, name: str) -> None:
    check(root / name)


def check(folder: Path) -> None:
    """Compares the engine's step with plain transformers."""
    losses, grads, means, validated = ours(folder)
    expected, expected_grads, sums = plain(folder)
    assert losses.keys() == expected.keys()
    for row, values in expected.items():
        torch.testing.assert_close(losses[row], values, rtol=0, atol=LOSS)
    assert 0.4 * SUPERVISED < sums[2] < 0.7 * SUPERVISED
    torch.testing.assert_close(means, sums / SUPERVISED, rtol=MEANS, atol=0)
    torch.testing.assert_close(validated, sums, rtol=MEANS, atol=0)
    assert difference(grads, expected_grads) < GRADIENT


def test_the_fused_optimizer_makes_the_same_step(root: Path) -> None:
    start = load_file(
        Path(configs.read(root / "1rank" / "config.yaml").model.path) / "model.safetensors"
    )
    own, fused = (
        torch.load(root / name / "rank0.pt", weights_only=True)["weights"]
        for name in ("1rank", "1rank-fused")
    )
    assert start.keys() == own.keys() == fused.keys()
    for name, before in start.items():
        assert (own[name] - before).abs().max() > 100 * STEP
        torch.testing.assert_close(fused[name], own[name], rtol=0, atol=STEP)


def test_the_recipe_chooses_deterministic_kernels(root: Path) -> None:
    for name, chosen in (("1rank", False), ("1rank-deterministic", True)):
        assert torch.load(root / name / "rank0.pt", weights_only=True)["deterministic"] is chosen


def test_bf16_is_fp32_rounded(root: Path) -> None:
    losses, grads, means, validated = ours(root / "bf16")
    expected, expected_grads, sums = plain(root / "bf16")
    for mine in (means, validated / SUPERVISED):
        torch.testing.assert_close(mine, sums / SUPERVISED, rtol=0, atol=BF16)
    for row, values in expected.items():
        torch.testing.assert_close(losses[row], values, rtol=0, atol=BF16)
    mine, theirs = (
        torch.cat([g[n].flatten() for n in expected_grads]) for g in (grads, expected_grads)
    )
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 1 - BF16
    assert mine.norm() / theirs.norm() == pytest.approx(1, abs=BF16 / 2)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_piece_is_noticed(root: Path, what: str) -> None:
    losses, grads, _, _ = ours(root / what)
    expected, expected_grads, _ = plain(root / what)
    if what != "normalisation":
        worst = max((losses[row] - values).abs().max().item() for row, values in expected.items())
        assert worst > 100 * LOSS
    assert difference(grads, expected_grads) > 100 * GRADIENT


@pytest.mark.parametrize("what", MISCOUNTED)
def test_entropy_and_accuracy_that_are_miscounted_are_noticed(root: Path, what: str) -> None:
    _, _, means, _ = ours(root / what)
    wanted = plain(root / what)[2] / SUPERVISED
    off = ((means - wanted) / wanted).abs()
    assert off[1] > 100 * MEANS
    assert what == "scale" or off[2] > 100 * MEANS


def test_slices_hold_every_token_once_without_padding() -> None:
    from trainer.batching.packing import pack

    packed = pack(rows(), parts=2, part=1)
    total = sum(length for length, _ in LENGTHS)
    assert packed.input_ids.shape == packed.position_ids.shape == (1, (total + 1) // 2)
    assert packed.lengths == tuple(length for length, _ in LENGTHS) + ((1,) if total % 2 else ())
    assert packed.attention()["max_length_q"] == max(packed.lengths)
    assert pack([], parts=2, part=0).supervised.numel() == 0
    assert sum(pack(rows(), 3, part).labels.numel() for part in range(3)) == SUPERVISED


def test_without_flash_attn_attention_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert attention.choose("auto", "cuda", "bf16") == "varlen"
    with pytest.raises(UserError, match=r"FLASH_ATTN=1 make setup-gpu, or .*attention=auto"):
        attention.choose("flash_attn", "cuda", "bf16")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert attention.choose("auto", "cuda", "bf16") == "flash_attn"


def test_liger_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)  # for Python: not there
    config = configs.load("tiny", ["device=cuda", "train.liger=true"])
    with pytest.raises(UserError, match=r"liger-kernel is not installed.*train\.liger=false"):
        build._check_model(config, AutoConfig.for_model("qwen3"))
