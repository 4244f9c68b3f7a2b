"""A QLoRA's steps, its checkpoint, and the 16-bit model that it is merged into."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.files import MANIFEST, write_json
from data_prep.tokenizer import tokenizers
from tests.conftest import ROOT, environment
from tests.trainer.checkpoint.saves import ADAPTERS
from tests.trainer.engine.ranks import rows
from trainer.batching.flops import Shape
from trainer.checkpoint.checkpoint import OPTIMIZER
from trainer.engine.adapters import TARGETS
from trainer.export.export import export
from trainer.export.merge_qlora import Merged
from trainer.export.weights import Trained, write
from trainer.recipe import load as configs
from trainer.run import base_model
from trainer.run.folder import Run

BF16 = 5e-2
"""Tolerance of a step's loss in bf16, whose numbers have eight bits."""
EXACT = 1e-5
"""Tolerance of a token's loss in fp32, whose sums have another order."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the adapters were trained, saved and trained again from there."""
    root = tmp_path_factory.mktemp("adapters")
    for name in ADAPTERS:
        precision = f"train.precision={'bf16' if name == 'adapters_bf16' else 'fp32'}"
        config = configs.load(
            "qlora_tiny", [f"run.root={root}/runs", f"data.dir={root}/data", precision]
        )
        configs.write(config, root / f"{name}.yaml")
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    common = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, "-m", "tests.trainer.checkpoint.saves", str(root)],
        env=os.environ | common,
        cwd=ROOT,
        check=True,
    )
    return root


def left(root: Path, phase: str) -> dict[str, Any]:
    return torch.load(root / f"{phase}-rank0.pt", weights_only=True)


@pytest.fixture(scope="module")
def merged(root: Path) -> dict[str, torch.Tensor]:
    """The merged model as it is written."""
    config = configs.read(root / "adapters.yaml")
    write(Merged(config, Trained(Run(root / "adapters").checkpoint(3))), root)
    return load_file(root / "model.safetensors")


def test_a_checkpoint_holds_nothing_but_adapters_and_their_8_bit_state(root: Path) -> None:
    trained = left(root, "adapters")
    state, config = trained["state"], configs.read(root / "adapters.yaml")
    tensors = {name: t for name, t in state.items() if t.dim() and not name.startswith(OPTIMIZER)}
    assert all(".lora_" in name for name in tensors)
    shape = Shape.of({"vocab_size": 1, **config.model.init})
    shape = Shape(**vars(shape) | {"lora_rank": config.train.lora_rank})
    assert sum(t.numel() for t in tensors.values()) == shape.adapter_parameters
    assert trained["types"] == {"torch.float32"}
    assert trained["optimizer"] == {
        "torch.uint8",
        "torch.float32",
    }  # bitsandbytes' choice below 4,096 elements
    assert trained["base"].keys() == {n for n in trained["base"] if n.split(".")[-2] in TARGETS}
    assert len(trained["base"]) == len(TARGETS) * shape.layers
    assert any("embed_tokens" in name for name in trained["frozen"])


def test_training_goes_on_bit_for_bit_after_a_validation_and_from_the_checkpoint(
    root: Path,
) -> None:
    saved, restored = left(root, "adapters"), left(root, "adapters_again")
    assert saved["state"].keys() == restored["state"].keys()
    assert all(
        torch.equal(saved["state"][name], restored["state"][name]) for name in saved["state"]
    )
    assert torch.equal(saved["drawn"], restored["drawn"])
    assert restored["losses"] == saved["losses"]
    assert saved["losses"][0] - saved["losses"][-1] > 0.1


def test_steps_in_bf16_are_those_in_fp32_but_for_rounding(root: Path) -> None:
    """Adapters and what is trained of them stay fp32."""
    exact, rounded = left(root, "adapters"), left(root, "adapters_bf16")
    assert rounded["types"] == {"torch.float32", "torch.bfloat16", "torch.uint8"}
    assert rounded["losses"][3:] == pytest.approx(exact["losses"], abs=BF16)
    assert rounded["losses"][3:] != exact["losses"]


def test_the_merge_is_the_model_that_was_trained_rounded_to_bf16(
    root: Path, merged: dict[str, torch.Tensor]
) -> None:
    """Its weights, before they are rounded, are put into plain transformers, which then has the
    same token losses.
    """
    from transformers import AutoModelForCausalLM

    trained, config = left(root, "adapters"), configs.read(root / "adapters.yaml")
    scale = config.train.lora_alpha / config.train.lora_rank
    model = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    weights = {name: t for name, t in model.state_dict().items() if name != "lm_head.weight"}
    changes = []
    for name, base in trained["base"].items():
        a, b = (trained["state"][name.replace("weight", f"lora_{x}.default.weight")] for x in "AB")
        weights[name] = base + scale * (b @ a)
        changes.append((weights[name] - base).norm() / base.norm())
    assert merged.keys() == weights.keys()
    assert all(torch.equal(merged[name], weights[name].bfloat16()) for name in weights)
    assert min(changes) > 2**-8  # or else the adapters would be lost in the rounding
    model.load_state_dict(weights, strict=False)
    losses, entropies, correct = [], [], []
    for row in rows():
        ids, first = row["input_ids"], int((row["loss_mask"] == 0).sum())
        logits = model(ids[None]).logits[0, first - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[first:], reduction="none"))
        entropies.append(torch.distributions.Categorical(logits=logits).entropy())
        correct.append(logits.argmax(-1) == ids[first:])
    assert torch.cat(losses).tolist() == pytest.approx(trained["seen"].tolist(), abs=EXACT)
    wanted = [torch.cat(x).sum().item() for x in (losses, entropies, correct)]
    for sums in trained["sums"]:  # of a step and of a validation
        assert sums.tolist() == pytest.approx(wanted, rel=EXACT)


def test_a_merge_into_the_original_weights_is_plain_pefts(root: Path) -> None:
    """peft adds the same adapters, in fp32, to the base as transformers loads it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = configs.amend(configs.read(root / "adapters.yaml"), ["export.merge_base=bf16"])
    trained = left(root, "adapters")["state"]
    ours = Merged(config, Trained(Run(root / "adapters").checkpoint(3)))
    model = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    how = LoraConfig(
        r=config.train.lora_rank,
        lora_alpha=config.train.lora_alpha,
        target_modules=list(TARGETS),
    )
    adapted = get_peft_model(model, how)
    adapters = {f"base_model.model.{name}": t for name, t in trained.items() if ".lora_" in name}
    adapters = {name: t for name, t in adapters.items() if name in adapted.state_dict()}
    assert len(adapters) == 2 * len(TARGETS) * config.model.init.num_hidden_layers
    adapted.load_state_dict(adapters, strict=False)
    theirs = adapted.merge_and_unload().state_dict()
    quantised = Merged(configs.read(root / "adapters.yaml"), ours.adapters)
    for name in ours.sizes:
        assert torch.equal(ours.read(name), theirs[name].bfloat16()), name
        same = torch.equal(ours.read(name), quantised.read(name))
        assert same == (name.removesuffix(".weight").rpartition(".")[2] not in TARGETS), name


def test_an_export_with_another_base_is_not_taken_for_the_wanted_one(tmp_path: Path) -> None:
    """One that recorded no base is an older one, whose base was NF4's."""
    config = configs.load("qlora_tiny", [f"run.root={tmp_path}"])
    other = configs.load("qlora_tiny", [f"run.root={tmp_path}", "export.merge_base=bf16"])
    run = Run.of(config)
    folder = run.export(3)
    folder.mkdir(parents=True)
    for manifest, same, refused in (({}, config, other), ({"merge_base": "bf16"}, other, config)):
        write_json(folder / MANIFEST, manifest)
        assert export(run, same, 3) == folder
        with pytest.raises(UserError, match=r"was merged with export\.merge_base=(nf4|bf16), not"):
            export(run, refused, 3)


MEASURE = """
import os, sys, torch
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
from trainer.export import weights
from trainer.recipe import load as configs
from trainer.export.merge_qlora import Merged

def status(key):
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

class Adapters:
    def read(self, name, dtype):
        with safe_open(folder / "adapters.safetensors", "pt") as file:
            return file.get_tensor(name)

folder = Path(sys.argv[1])
names = [f"model.layers.{i}.mlp.up_proj" for i in range(96)]
if os.fork() == 0:  # what is made leaves no memory behind
    weight, factors = torch.ones(1024, 1024).bfloat16(), {"A": (32, 1024), "B": (1024, 32)}
    save_file({f"{name}.weight": weight.clone() for name in names}, folder / "model.safetensors")
    adapters = {
        f"{name}.lora_{x}.default.weight": torch.ones(size)
        for name in names
        for x, size in factors.items()
    }
    save_file(adapters, folder / "adapters.safetensors")
    (folder / "config.json").write_text("{}")
    os._exit(0)
assert os.wait()[1] == 0
words = [f"model.path={folder}", "model.init=null", "train.precision=bf16"]
config = configs.load("qlora_tiny", words)
weights.SHARD_SIZE = "20MB"
merged = Merged(config, Adapters())
merged.read(names[0] + ".weight")  # imports everything
(folder / "merged").mkdir()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is held
before = status("VmRSS")
weights.write(merged, folder / "merged")
size = sum(p.stat().st_size for p in (folder / "merged").glob("*.safetensors"))
print(size, status("VmHWM") - before)
"""


def test_a_merge_holds_a_file_and_a_matrix_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    # What is freed goes back to the system at once, so that the peak is what was held.
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment() | exact,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    size, extra = map(int, done.stdout.split()[-2:])
    assert size > 200e6
    assert 20e6 < extra < 0.4 * size
