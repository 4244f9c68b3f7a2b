"""Stock verl's SFT trainer on the rows, and in the order, of a run of ours.

    python -m tests.stock_verl CONFIG OUT [KEY=VALUE ...]    (with torchrun's variables)

Its own engine, micro-batches, loss and loop, from the same frozen configuration, on its device;
KEY=VALUE overrides verl's keys. Tokens are ours, since its template drops the thinking. Rank 0
appends a line for each step to OUT, as ``training.record`` of the GPU check says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from data_prep.output.folder import dataset_folder, token_file
from tests.gpu.training import record
from trainer.batching import sampler
from trainer.batching.dataset import TokenDataset
from trainer.process import cpu_platform, process_group
from trainer.recipe import load as configs


class Rows(TokenDataset):
    """Our rows, with the signature of verl's ``data.custom_cls``."""

    def __init__(self, parquet_files: str, **_: Any) -> None:
        super().__init__(Path(parquet_files))


def main(path: Path, out: Path, overrides: list[str]) -> None:
    config = configs.read(path)
    cpu_platform.use(config.device)
    from verl.trainer import sft_trainer
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    class CpuEngine(FSDPEngineWithLMHead):
        """As it is: verl registers it for other devices alone."""

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu"])(
        CpuEngine
    )

    class InOurOrder:
        """Every rank's share, as they come, of the rows of our steps; in place of torch's
        DistributedSampler.
        """

        def __init__(self, dataset: Any, num_replicas: int, rank: int, **_: Any) -> None:
            self.rows, self.count, self.rank = len(dataset), num_replicas, rank

        def set_epoch(self, epoch: int) -> None: ...

        def __len__(self) -> int:
            return self.rows // self.count

        def __iter__(self) -> Iterator[int]:
            size = config.train.batch_size // self.count
            for step in range(self.rows // config.train.batch_size):
                rows = sampler.step_rows(
                    step, self.rows, config.train.batch_size, config.train.seed
                ).tolist()
                yield from rows[self.rank * size : (self.rank + 1) * size]

    class Recorder:
        """In place of verl's Tracking."""

        def __init__(self, **_: Any) -> None: ...

        def log(self, data: dict[str, Any], step: int) -> None:
            if "train/loss" in data:
                record(out, step, data["train/loss"])

    sft_trainer.DistributedSampler, sft_trainer.Tracking = InOurOrder, Recorder
    with initialize_config_module("verl.trainer.config", version_base=None):
        stock = compose("sft_trainer_engine")
    OmegaConf.set_struct(stock, False)
    settings = OmegaConf.merge(
        stock,
        config.verl,
        {
            "model": {"override_config": {"attn_implementation": "sdpa"}},
            "data": {
                "train_batch_size": config.train.batch_size,
                "max_token_len_per_gpu": config.train.max_tokens_per_gpu,
                "train_files": str(token_file(dataset_folder(config), "train")),
                "num_workers": 0,
                "custom_cls": {"path": "pkg://tests.stock_verl", "name": "Rows"},
            },
            "trainer": {
                "total_epochs": 1,
                "total_training_steps": config.train.max_steps,
                "resume_mode": "disable",
                "device": config.device,
            },
        },
        OmegaConf.from_dotlist(overrides),
    )
    process_group.join(config.device, "env://")
    trainer = sft_trainer.SFTTrainer(config=settings)
    trainer.ckpt_handler.save_checkpoint = lambda **_: None
    trainer.fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
