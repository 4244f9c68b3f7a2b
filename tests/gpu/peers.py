"""Other trainers on the same rows, from the same weights, at their best settings."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from tests.gpu.bench import Bench
from tests.gpu.training import FIRST, LAST, PARITY, RATE, figures, peak_metric, record
from trainer.batching import sampler
from trainer.recipe import load as configs


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def kernel() -> str:
    """transformers' name of the best attention that is here."""
    return "flash_attention_2" if installed("flash_attn") else "sdpa"


def verl(bench: Bench) -> None:
    """Stock verl's SFT trainer: no padding, dynamic batches, checkpointing, Liger, and its fused
    loss where asked for.

    Without flash-attn crippled: SDPA under a mask of all pairs.
    """
    from tests import stock_verl

    settings = [
        f"model.override_config.attn_implementation={kernel()}",
        "model.enable_gradient_checkpointing=true",
    ]
    parts = [kernel()]
    if kernel() == "sdpa":
        parts.append("crippled: no flash-attn")
    liger, fused = bench.on_gpu and installed("liger_kernel"), "fused" in bench.case.arguments
    if liger:
        settings.append("model.use_liger=true")
        parts.append("Liger")
    if fused:
        settings.append("model.use_fused_kernels=true")
        parts.append("fused loss")
    if fused and liger:
        settings.append("model.fused_kernel_options.impl_backend=liger")
    config, out = bench.config(), bench.folder / f"{bench.case.name}.jsonl"
    path = bench.folder / f"{bench.case.name}.yaml"
    configs.write(config, path)
    stock_verl.main(path, out, settings)
    _beside(bench, config, out, f"stock verl ({', '.join(parts)})")


def trl(bench: Bench) -> None:
    """TRL's SFTTrainer: float32 weights, bf16 autocast, gradient checkpointing, Liger where it is
    installed.

    One row per micro-batch: nothing is padded, with flash-attn or without, and every step has the
    rows of ours. A QLoRA has the base and, in the beginning, the adapters of ours; TRL keeps them
    in bf16, but not in fp32.
    """
    config, out = bench.config(), bench.folder / f"{bench.case.name}.jsonl"
    liger = bench.on_gpu and installed("liger_kernel")
    train_with_trl(config, out, liger)
    _beside(bench, config, out, f"TRL ({kernel()}{', Liger' if liger else ''})")


def _beside(bench: Bench, config: DictConfig, out: Path, name: str) -> None:
    """Adds rows of ours beside this trainer's."""
    theirs = figures(bench, config, out)
    mine = bench.figures(
        {"full": "ours", "adapters": "qlora", "long rows": "qlora-long-rows"}[bench.case.load]
    )
    for metric, unit in ((RATE, "1/s"), (peak_metric(bench), "GB"), (FIRST, ""), (LAST, "")):
        if metric in mine:
            bench.figure(metric, unit, mine[metric], peer=theirs[metric], peer_name=name)
        else:
            bench.skip(
                metric, "ours was not measured", unit=unit, peer=theirs[metric], peer_name=name
            )
    if FIRST in mine:
        bench.figure(
            "loss parity",
            "relative",
            abs(mine[FIRST] / theirs[FIRST] - 1),
            peer_name=name,
            limit=PARITY,
        )


def train_with_trl(config: DictConfig, out: Path, liger: bool) -> None:
    """Trains ``config`` with TRL; leaves a line per step in ``out``."""
    # With a local rank accelerate would wrap the model for several, which costs a copy of the
    # gradients.
    os.environ.pop("LOCAL_RANK", None)
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from data_prep.output.folder import dataset_folder, token_file
    from data_prep.tokenizer import tokenizers
    from trainer.batching.dataset import TokenDataset

    class Recorder(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any
        ) -> None:
            if "loss" in logs:
                record(out, state.global_step, float(logs["loss"]))

    train, rows = config.train, TokenDataset(token_file(dataset_folder(config), "train"))
    steps = range(train.max_steps)
    order = [
        i
        for step in steps
        for i in sampler.step_rows(step, len(rows), train.batch_size, train.seed).tolist()
    ]
    items = [
        {"input_ids": rows[i]["input_ids"], "completion_mask": rows[i]["loss_mask"]} for i in order
    ]
    chosen: dict[str, Any]
    if train.lora_rank:
        model = _adapted(config)
        adapters = [p for p in model.parameters() if p.requires_grad]
        own, chosen = [p.data for p in adapters], {"optim": "adamw_8bit"}
    else:
        model, adapters, own = config.model.path, [], []
        chosen = {"model_init_kwargs": {"dtype": "float32", "attn_implementation": kernel()}}
    settings = SFTConfig(
        output_dir=str(out.with_suffix("")),
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        max_length=None,
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=train.batch_size,
        max_steps=train.max_steps,
        train_sampling_strategy="sequential",
        learning_rate=train.lr,
        weight_decay=train.weight_decay,
        adam_beta1=train.betas[0],
        adam_beta2=train.betas[1],
        max_grad_norm=train.clip_grad,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": train.min_lr_ratio},
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=train.precision == "bf16",
        use_liger_kernel=liger,
        use_cpu=config.device == "cpu",
        **chosen,
    )
    trainer = SFTTrainer(
        model,
        args=settings,
        train_dataset=Dataset.from_list(items),
        callbacks=[Recorder()],
        processing_class=tokenizers.load(config.verl.model.tokenizer_path),
    )
    if train.precision == "fp32":
        for adapter, data in zip(adapters, own, strict=True):
            adapter.data = data
    trainer.train()


def _adapted(config: DictConfig) -> Any:
    """The base in 4 bits with adapters, as ``trainer.qlora`` makes them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.engine.adapters import TARGETS
    from trainer.engine.nf4 import compute_type, quantization

    train, dtype = config.train, compute_type(config.train.precision)
    model = AutoModelForCausalLM.from_pretrained(
        config.model.path,
        dtype=dtype,
        attn_implementation=kernel(),
        quantization_config=quantization(dtype),
        device_map={"": config.device},
    )
    torch.manual_seed(train.seed)
    adapters = LoraConfig(
        r=train.lora_rank, lora_alpha=train.lora_alpha, target_modules=list(TARGETS)
    )
    return get_peft_model(model, adapters)
