"""The export: the trainer's own logits, little memory, nothing to unpickle, and its way to the
hub.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from common.files import read_json, write_lock
from data_prep.tokenizer import token_files
from tests.conftest import STEPS, environment, warmstart
from tests.upload_hub import REPO, SECRET, Hub, serving


def test_holds_only_what_can_be_read_without_unpickling(export: Path) -> None:
    manifest = read_json(export / "manifest.json")
    assert {p.suffix for p in export.iterdir()} == {
        ".json",
        ".jinja",
        ".safetensors",
        ".md",
        ".png",
    }
    assert {p.name for p in export.iterdir()} - manifest["files"].keys() == {
        "README.md",
        "loss.png",
        "manifest.json",
    }
    assert len({p.stat().st_mode for p in export.iterdir()}) == 1


def test_gives_the_trainers_logits_within_bf16_rounding(export: Path, short_run: Path) -> None:
    """Rounding changes each weight by at most 2**-9 of it, evenly spread: a logit's change is, to
    first order, a sum of independent errors g * w * u with u uniform in +-2**-9, and eight standard
    deviations of that are the limit.
    """
    import torch.distributed.checkpoint as dcp
    from transformers import AutoModelForCausalLM

    trained = AutoModelForCausalLM.from_pretrained(short_run / "base", dtype=torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    state = {name: t for name, t in trained.state_dict().items() if name != "lm_head.weight"}
    checkpoint = str(short_run / "checkpoints" / f"step_{STEPS}")
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(checkpoint), no_dist=True)
    rows = token_files.read(short_run.parent.parent / "data" / "tiny" / "tokens" / "test.arrow")
    for ids in rows.column("input_ids").to_pylist()[:3]:
        ours, theirs = (model(torch.tensor([ids])).logits[0, -2] for model in (trained, exported))
        for token in ours.topk(2).indices:
            grads = torch.autograd.grad(ours[token], list(trained.parameters()), retain_graph=True)
            squares = sum(
                ((g * w).square().sum() for g, w in zip(grads, trained.parameters(), strict=True)),
                torch.zeros(()),
            )
            limit = 8 * 2**-9 * math.sqrt(squares.item() / 3)
            assert (
                0
                < abs(ours[token] - theirs[token]).item()
                < limit
                < 0.1 * (ours.max() - ours.min())
            )


MEASURE = """
import os, sys, torch, torch.distributed.checkpoint as dcp
from pathlib import Path
from common.files import sha256_file, write_json
from trainer.recipe import load as configs
from trainer.checkpoint.checkpoint import OPTIMIZER
from trainer.export.export import export
from trainer.run.folder import SCALARS, Run

def status(key):
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

small, big = Run(Path(sys.argv[1])), Run(Path(sys.argv[2]))
if os.fork() == 0:  # what is made leaves no memory behind
    sizes = {f"model.layers.{i}.w": (4096, 1024) for i in range(24)}
    sizes["model.embed_tokens.weight"] = (16384, 1024)
    state = {
        prefix + name: torch.randn(size)
        for name, size in sizes.items()
        for prefix in ("", OPTIMIZER)
    }
    folder = big.checkpoint(1)
    storage = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dcp.save(state, storage_writer=storage, no_dist=True)
    write_json(folder / SCALARS, {"identity": {"dataset": ""}})
    hashes = {p.name: sha256_file(p) for p in folder.iterdir()}
    write_json(folder / "manifest.json", {"files": hashes})
    os._exit(0)
assert os.wait()[1] == 0
config = configs.read(small.config)
export(small, config, int(sys.argv[3]))  # imports everything
Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is held
before = status("VmRSS")
size = sum(p.stat().st_size for p in export(big, config, 1).glob("*.safetensors"))
print(size, status("VmHWM") - before)
"""


def test_needs_less_memory_than_half_again_the_model(
    export: Path, short_run: Path, tmp_path: Path
) -> None:
    """In a process of its own, beyond what its imports hold."""
    small, big = tmp_path / "runs" / "tiny", tmp_path / "runs" / "big"
    shutil.copytree(
        short_run, small, ignore=shutil.ignore_patterns("export", "tensorboard", "wandb")
    )
    command = [sys.executable, "-c", MEASURE, str(small), str(big), str(STEPS)]
    folder = short_run.parent.parent
    done = subprocess.run(
        command, cwd=folder, env=environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    size, extra = map(int, done.stdout.split())
    assert size > 200e6
    assert extra < 1.5 * size


def test_waits_for_another_process_and_refuses_a_damaged_checkpoint(
    export: Path, short_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(short_run, folder, ignore=shutil.ignore_patterns("export"))
    shutil.copytree(short_run.parent.parent / "data", tmp_path / "data")
    words = [sys.executable, "-m", "warmstart", "export", "tiny"]
    with write_lock(folder / "export" / f".step_{STEPS}.lock"):
        waits = subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert waits.stdout
        for line in waits.stdout:
            if f"waiting for process {os.getpid()} on host" in line:
                break
        shutil.copytree(export, folder / "export" / f"step_{STEPS}")
    assert waits.wait() == 0, "what the other process has written counts"
    shutil.rmtree(folder / "export" / f"step_{STEPS}")
    shard = next((folder / "checkpoints" / f"step_{STEPS}").glob("*.safetensors"))
    with shard.open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(bytes([shard.read_bytes()[-1] ^ 1]))
    done = warmstart("export", "tiny", folder=tmp_path, check=False)
    assert done.returncode == 2 and f"{shard.name} is missing or damaged" in done.stderr
    assert not (folder / "export" / f"step_{STEPS}").exists()


def test_a_full_disk_and_a_folder_in_the_way_are_said(
    short_run: Path, small_disk: Callable[[int], Path]
) -> None:
    """The weights take more than is left; the next try, with room, succeeds."""
    disk = small_disk(2**26)
    run = disk / "runs" / "tiny"
    left_out = shutil.ignore_patterns("export", "tensorboard", "wandb", "trace*")
    shutil.copytree(short_run, run, ignore=left_out)
    shutil.copytree(short_run.parent.parent / "data", disk / "data")
    room = 2**19  # the weights have 1.2 MB
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - room))
    done = warmstart("export", "tiny", folder=disk, check=False)
    assert done.returncode == 2 and "No space left on device" in done.stderr, done.stderr
    assert not list((run / "export").glob("*step_*"))
    filler.unlink()
    export = run / "export" / f"step_{STEPS}"
    export.mkdir()
    done = warmstart("export", "tiny", folder=disk, check=False)
    assert done.returncode == 2 and "move it away" in done.stderr, done.stderr
    export.rmdir()
    (run / "export" / f".step_{STEPS}.partial").mkdir()  # as a killed export leaves it
    (run / "export" / f".step_{STEPS}.partial" / "model.safetensors").write_text("torn")
    warmstart("export", "tiny", folder=disk)
    assert {p.name for p in (run / "export").iterdir()} == {export.name}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving("models") as server:
        yield server


def push(
    folder: Path, home: Path, url: str, token: str | None, repo: str = REPO
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in environment().items() if not k.startswith("HF_")}
    values = (
        clean | {"HF_ENDPOINT": url, "HF_HOME": str(home)} | ({"HF_TOKEN": token} if token else {})
    )
    return subprocess.run(
        [sys.executable, "-m", "warmstart", "export", "tiny", "--push", repo],
        cwd=folder,
        env=values,
        capture_output=True,
        text=True,
    )


def test_push_uploads_the_export_and_shows_the_token_to_nobody(
    export: Path, hub: Hub, tmp_path: Path
) -> None:
    folder = export.parents[3]
    foreign = export / "keys.json"
    foreign.write_text("mine")
    done = push(folder, tmp_path, hub.url, SECRET)
    foreign.unlink()
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/{REPO}" in done.stdout
    assert [(r["name"], r["visibility"]) for r in hub.created] == [("warm-tiny", "private")]
    assert hub.files == {p.name: p.read_bytes() for p in export.iterdir()}
    assert f'model_name = "{REPO}"' in hub.files["README.md"].decode()
    written = [p for root in (folder, tmp_path) for p in root.rglob("*") if p.is_file()]
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]
    assert SECRET not in done.stdout + done.stderr


def test_what_cannot_be_pushed_is_said_without_the_token(
    export: Path, hub: Hub, tmp_path: Path
) -> None:
    folder = export.parents[3]
    for url, token, repo, code, message in (
        (hub.url, None, REPO, 2, "HF_TOKEN is not set"),
        (hub.url, SECRET, "no spaces/here", 2, "--push no spaces/here"),
        (hub.url, SECRET, "ownerless", 2, "OWNER/ownerless"),
        (hub.url, "hf_wrong", REPO, 1, "401"),
        ("http://127.0.0.1:9", SECRET, REPO, 1, "could not be pushed"),
    ):
        done = push(folder, tmp_path, url, token, repo)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert message in done.stderr
        assert (token or SECRET) not in done.stdout + done.stderr
    hub.refusal = '"license" must be one of apache-2.0, mit'
    done = push(folder, tmp_path, hub.url, SECRET)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r'hub refuses .*README\.md: .*"license" must be one of', done.stderr)
    assert hub.files == {}
