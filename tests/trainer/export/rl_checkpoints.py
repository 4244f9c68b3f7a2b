"""A checkpoint of RL as verl saves it, of a model that nobody trained."""

from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from common.files import MANIFEST, write_text
from data_prep.tokenizer import tokenizers
from tests.trainer.run.rl_runs import begun
from trainer.recipe import load as configs
from trainer.run.base_model import materialise
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart

HASH = "0123abcd"
LABEL = ModelLabel(rl=20, start=HASH)
STEP = 7


def tiny(tmp_path: Path) -> DictConfig:
    """The tiny recipe with its tokenizer and its random model."""
    values = [f"data.dir={tmp_path}/data", f"run.root={tmp_path}/runs", "data.system=Think."]
    config = configs.load("tiny", values)
    write_text(tmp_path / "data" / "tiny" / MANIFEST, '{"rows": {}}')
    write_text(tmp_path / "data/tiny/heldout.jsonl", '{"id": "a", "problem": "?", "answer": "2"}\n')
    tokenizers.trained(["12 + 30 = 42"] * 9).save_pretrained(config.verl.model.tokenizer_path)
    materialise(config)
    configs.write(config, Run.of(config).config)
    return config


def saved(config: DictConfig) -> RlStart:
    """A start whose newest checkpoint verl has saved: in fp32, with the head that is tied, and the
    tokenizer's end token alone.
    """
    from transformers import AutoModelForCausalLM

    start = begun(Run.of(config), STEP, HASH, checkpoints=(10, 20))
    folder = start.weights(20)
    model = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.config.eos_token_id = 5
    model.save_pretrained(folder)
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, path, metadata={"format": "pt"})
    return start
