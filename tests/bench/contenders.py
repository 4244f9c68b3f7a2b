"""Training steps of ours or of TRL's SFT trainer in a process of its own, for ``bench_gpu``.

    python -m tests.bench.contenders base|ours|trl CONFIG OUT       (RANK, LOCAL_RANK, WORLD_SIZE and MASTER_ as torch)

All read one frozen configuration and train the same rows in the same steps. Each step appends a line
{"step", "loss", "at", "memory"} to OUT: when it was over, and the process's peak memory so far in bytes. ``base``
writes the random model of ``model.init`` and a tokenizer first. Stock verl's trainer is ``tests.stock_verl``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from tests.bench.cases import FLASH_ATTN, LIGER
from trainer import config as configs
from trainer import ranks, sampler


def record(out: Path, step: int, loss: float) -> None:
    """Appends a finished step's line; memory is the tensors' on a GPU, the resident set on a CPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = {"step": step, "loss": loss, "at": time.monotonic(), "memory": memory}
    with out.open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def base(config: DictConfig, _: Path) -> None:
    """Writes the random model in bf16, so that every contender starts from the same weights, and a small tokenizer."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    from data_prep import vocabulary

    vocabulary.trained(["some text"]).save_pretrained(config.verl.model.tokenizer_path)
    torch.manual_seed(config.model.init_seed)
    with torch.device(config.device):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**config.model.init), dtype=torch.bfloat16)
    model.save_pretrained(config.model.path)


def ours(config: DictConfig, out: Path) -> None:
    """The trainer's engine and steps."""
    from trainer.build import build_engine
    from trainer.dataset import TokenDataset
    from trainer.stepping import Stepper

    ranks.check_device(config.device)
    ranks.join(config.device, "env://")
    engine = build_engine(config, config.train.max_steps)
    stepper = Stepper(engine, TokenDataset(config.verl.data.train_files), config.train)
    for step in range(config.train.max_steps):
        record(out, step + 1, stepper.train(step).loss)


def trl(config: DictConfig, out: Path) -> None:
    """TRL's SFTTrainer: float32 weights, bf16 autocast, gradient checkpointing, Liger where it is installed.

    One row a micro-batch: nothing is padded, with flash-attn or without, and every step has the rows of ours.
    A QLoRA has the base and, in the beginning, the adapters of ours; TRL keeps them in bf16, but not in fp32.
    """
    # With a local rank accelerate would wrap the model for several, which costs a copy of the gradients.
    del os.environ["LOCAL_RANK"]
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from data_prep import vocabulary
    from trainer.dataset import TokenDataset

    class Recorder(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs:
                record(out, state.global_step, float(logs["loss"]))

    train, rows = config.train, TokenDataset(config.verl.data.train_files)
    steps = range(train.max_steps)
    order = [i for step in steps for i in sampler.step_rows(step, len(rows), train.batch_size, train.seed).tolist()]
    items = [{"input_ids": rows[i]["input_ids"], "completion_mask": rows[i]["loss_mask"]} for i in order]
    attention = "flash_attention_2" if FLASH_ATTN else "sdpa"
    if train.lora_rank:
        model = _adapted(config, attention)
        adapters = [p for p in model.parameters() if p.requires_grad]
        own, chosen = [p.data for p in adapters], {"optim": "adamw_8bit"}
    else:
        model, adapters, own = config.model.path, [], []
        chosen = {"model_init_kwargs": {"dtype": "float32", "attn_implementation": attention}}
    settings = SFTConfig(
        output_dir=str(out.with_suffix("")), report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        max_length=None, completion_only_loss=True, dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=1, gradient_accumulation_steps=train.batch_size, max_steps=train.max_steps,
        train_sampling_strategy="sequential", learning_rate=train.lr, weight_decay=train.weight_decay,
        adam_beta1=train.betas[0], adam_beta2=train.betas[1], max_grad_norm=train.clip_grad,
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": train.min_lr_ratio},
        gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=train.precision == "bf16", use_liger_kernel=LIGER and config.device == "cuda",
        use_cpu=config.device == "cpu", **chosen,
    )  # fmt: skip
    trainer = SFTTrainer(
        model, args=settings, train_dataset=Dataset.from_list(items), callbacks=[Recorder()],
        processing_class=vocabulary.load(config.verl.model.tokenizer_path),
    )  # fmt: skip
    if train.precision == "fp32":
        for adapter, data in zip(adapters, own, strict=True):
            adapter.data = data
    trainer.train()


def _adapted(config: DictConfig, attention: str) -> Any:
    """The base in 4 bits with adapters, as ``trainer.qlora`` makes them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.qlora.nf4 import TARGETS, compute_type, quantization

    train, dtype = config.train, compute_type(config.train.precision)
    model = AutoModelForCausalLM.from_pretrained(
        config.model.path, dtype=dtype, attn_implementation=attention, quantization_config=quantization(dtype),
        device_map={"": config.device},
    )  # fmt: skip
    torch.manual_seed(train.seed)
    return get_peft_model(model, LoraConfig(r=train.lora_rank, lora_alpha=train.lora_alpha, target_modules=TARGETS))


if __name__ == "__main__":
    {"base": base, "ours": ours, "trl": trl}[sys.argv[1]](configs.read(Path(sys.argv[2])), Path(sys.argv[3]))
