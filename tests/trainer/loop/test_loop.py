"""A run's validation, metrics and loggers, and its end when gradients stay non-finite."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.output.folder import dataset_folder, token_file
from data_prep.tokenizer import token_files
from tests.conftest import RECIPE, STEPS, lines, warmstart
from trainer.batching.dataset import TokenDataset
from trainer.recipe import load as configs


def test_the_validation_is_that_of_plain_transformers(short_run: Path) -> None:
    """Loss, entropy and accuracy over all held-out rows, in fp32, from the checkpoint's own
    tensors.
    """
    import torch.distributed.checkpoint as dcp
    from transformers import AutoModelForCausalLM

    folder = short_run.parent.parent
    rows = TokenDataset(folder / "data" / "tiny" / "tokens" / "test.arrow")
    model = AutoModelForCausalLM.from_pretrained(short_run / "base", dtype=torch.float32)
    state = {
        name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    reader = dcp.HuggingFaceStorageReader(str(short_run / "checkpoints" / f"step_{STEPS}"))
    dcp.load(state, storage_reader=reader, no_dist=True)
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for i in range(len(rows)):
            ids, first = rows[i]["input_ids"], rows.prompt_lens[i]
            logits, labels = model(ids[None]).logits[0, first - 1 : -1], ids[first:]
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            entropies = torch.distributions.Categorical(logits=logits).entropy()
            correct = logits.argmax(-1) == labels
            sums += torch.stack([x.double().sum() for x in (losses, entropies, correct)])
    loss, entropy, accuracy = sums / sum(rows.supervised(i) for i in range(len(rows)))
    steps = lines(short_run / "metrics.jsonl")
    assert len(rows) == 40
    assert [s["step"] for s in steps if s["val_loss"] is not None] == [10, STEPS]
    assert steps[-1]["val_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert steps[-1]["val_entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert steps[-1]["val_token_accuracy"] == pytest.approx(accuracy.item(), rel=1e-5)
    assert accuracy > 0.1


def test_meters_agree_with_what_was_trained(short_run: Path) -> None:
    rows = TokenDataset(short_run.parent.parent / "data" / "tiny" / "tokens" / "train.arrow")
    steps = lines(short_run / "metrics.jsonl")
    assert sum(s["tokens"] for s in steps) < sum(rows.lengths)
    for s in steps:
        assert s["tokens_per_s"] == pytest.approx(s["tokens"] / s["seconds"])
        assert s["tokens_per_s_per_gpu"] == pytest.approx(s["tokens_per_s"] / 2)
        assert 0 < s["data_seconds"] < s["mean_seconds"] <= s["seconds"]
        assert 0.5 < s["balance"] <= 1 and 0 < s["fill"] <= 1
        assert 0 < s["entropy"] < 7 and 0 <= s["token_accuracy"] < 1
        assert s["mfu"] is None and not s["skipped"] and s["peak_memory_gb"] > 0.1


def test_views_hold_every_step(short_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(short_run / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/val_entropy")] == [10, STEPS]
    assert len(events.Scalars("train/token_accuracy")) == STEPS
    losses = events.Scalars("train/loss")
    assert [e.step for e in losses] == list(range(1, STEPS + 1))
    assert losses[-1].value == pytest.approx(lines(short_run / "metrics.jsonl")[-1]["loss"])
    assert list((short_run / "wandb").glob("offline-run-*/*.wandb"))
    for rank in range(2):
        with gzip.open(short_run / "attempts" / "1" / f"trace-rank{rank}.json.gz", "rt") as f:
            assert any(
                "scaled_dot_product" in event.get("name", "")
                for event in json.load(f)["traceEvents"]
            )


def test_what_cannot_be_trained_is_refused_before_a_rank_starts(short_run: Path) -> None:
    folder = short_run.parent.parent
    done = warmstart(
        "train", "tiny", *RECIPE, "run.name=no", "train.batch_size=1", folder=folder, check=False
    )
    assert done.returncode == 2
    assert (
        "train.batch_size=1 leaves some of the 2 data-parallel groups without rows" in done.stderr
    )
    assert not (folder / "runs" / "no" / "attempts").exists()


def test_gradients_that_stay_non_finite_end_the_run_with_the_rows(short_run: Path) -> None:
    folder = short_run.parent.parent
    broken = folder / "runs" / "broken"
    shutil.copytree(short_run / "base", broken / "base")
    weights = load_file(broken / "base" / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, broken / "base" / "model.safetensors", metadata={"format": "pt"})
    done = warmstart("train", "tiny", *RECIPE, "run.name=broken", folder=folder, check=False)
    assert done.returncode == 1
    steps = lines(broken / "attempts" / "1" / "metrics.jsonl")
    assert [s["skipped"] for s in steps] == [True] * 3
    assert "no finite gradient in 3 steps in a row" in done.stderr
    config = configs.read(broken / "config.yaml")
    ids = set(
        token_files.read(folder / token_file(dataset_folder(config), "train"))
        .column("id")
        .to_pylist()
    )
    named = done.stderr.split("the rows of step 3: ")[1].splitlines()[0].split(", ")
    assert len(named) == 16 and set(named) <= ids
