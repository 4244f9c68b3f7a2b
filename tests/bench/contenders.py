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
    settings = SFTConfig(
        output_dir=str(out.with_suffix("")), report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "flash_attention_2" if FLASH_ATTN else "sdpa"},
        max_length=None, completion_only_loss=True, dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=1, gradient_accumulation_steps=train.batch_size, max_steps=train.max_steps,
        train_sampling_strategy="sequential", learning_rate=train.lr, weight_decay=train.weight_decay,
        adam_beta1=train.betas[0], adam_beta2=train.betas[1], max_grad_norm=train.clip_grad,
        lr_scheduler_type="cosine", gradient_checkpointing=True, bf16=train.precision == "bf16",
        use_liger_kernel=LIGER and config.device == "cuda", use_cpu=config.device == "cpu",
    )  # fmt: skip
    SFTTrainer(
        config.model.path, args=settings, train_dataset=Dataset.from_list(items), callbacks=[Recorder()],
        processing_class=vocabulary.load(config.verl.model.tokenizer_path),
    ).train()  # fmt: skip


if __name__ == "__main__":
    {"base": base, "ours": ours, "trl": trl}[sys.argv[1]](configs.read(Path(sys.argv[2])), Path(sys.argv[3]))
