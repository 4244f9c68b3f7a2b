"""The training loop of one rank.

    python -m trainer.loop RUN ATTEMPT RENDEZVOUS      (RANK, LOCAL_RANK and WORLD_SIZE in the environment)

Replaces verl's own loop, which drops the rows that do not fill a step, has no stop, and resumes an epoch
off; model, sharding, optimizer and loss are verl's engine.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig

from data_prep.files import MANIFEST, sha256_file, write_json
from trainer import config as configs
from trainer import ranks, sampler
from trainer.metrics import StepMetrics, rebuild
from trainer.rundir import Run
from trainer.stopping import STOPPED, StopRequest

OUTCOME = "outcome.json"
USAGE = 2


def train(run: Run, attempt: Path | None, config: DictConfig, stop: StopRequest, rendezvous: str) -> int:
    """Trains from the newest checkpoint to the last step, or to an agreed stop; returns the exit code.

    Collective over the ranks. ``attempt`` is where rank 0 writes metrics and outcome; others may pass None.
    Raises ValueError for a missing GPU or package.
    """
    import torch.distributed as dist

    from trainer import checkpoint
    from trainer.dataset import TokenDataset

    ranks.check_device(config.device, config.train.attention)
    rank = ranks.join(config.device, rendezvous)
    dataset = TokenDataset(config.verl.data.train_files)
    settings, world = config.train, dist.get_world_size()
    per_epoch = sampler.steps_per_epoch(len(dataset), settings.batch_size)
    total = min(per_epoch * settings.epochs, settings.max_steps or sys.maxsize)
    engine = build_engine(config, total)
    step = run.checkpoints[-1] if run.checkpoints else 0
    if step:
        checkpoint.load(run, step, engine)
    stop.arm()
    stopped, started, first = False, time.monotonic(), step
    with _metrics_log(attempt if rank == 0 else None) as log:
        while step < total and not stopped:
            begin = time.monotonic()
            lr = engine.lr_scheduler.get_last_lr()[0]
            loss, grad_norm, tokens, stopped = _step(engine, dataset, step, settings, rank, world, stop)
            step += 1
            now = time.monotonic()
            if rank == 0:
                metrics = StepMetrics(
                    step=step, total=total, epoch=(step - 1) // per_epoch + 1, loss=loss, grad_norm=grad_norm, lr=lr,
                    tokens=tokens, tokens_per_s=tokens / (now - begin), seconds=now - begin,
                    eta_s=(now - started) / (step - first) * (total - step),
                )  # fmt: skip
                log.write(metrics.json())
                log.flush()
                print(metrics.line(), flush=True)
            if step % per_epoch == 0 or step == total or stopped:
                checkpoint.save(run, step, engine, {"dataset": dataset_identity(config)})
    status = "finished" if step == total else "stopped"
    if rank == 0:
        assert attempt is not None
        rebuild(run)
        write_json(attempt / OUTCOME, {"status": status, "step": step, "total": total})
    dist.barrier()
    dist.destroy_process_group()
    return exit_code(status)


def dataset_identity(config: DictConfig) -> str:
    """What names the dataset's content: the hash of its manifest. Raises ValueError when it is not built."""
    manifest = Path(config.data.dir) / config.data.name / MANIFEST
    if not manifest.exists():
        raise ValueError(f"dataset {config.data.name} is not built: warmstart data {config.name}")
    return sha256_file(manifest)


def exit_code(status: str) -> int:
    """The exit code of an attempt's outcome."""
    return {"finished": 0, "stopped": STOPPED}[status]


def _metrics_log(attempt: Path | None) -> IO[str]:
    return Path(os.devnull if attempt is None else attempt / "metrics.jsonl").open("a", encoding="utf-8")


def build_engine(config: DictConfig, total_steps: int) -> Any:
    """verl's engine for ``config``, its weights loaded and sharded over the process group."""
    from trainer import platform

    platform.use(config.device)
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from trainer.engine import BACKEND

    optimizer = omega_conf_to_dataclass(config.verl.optim)
    optimizer.total_training_steps = total_steps
    model = omega_conf_to_dataclass(config.verl.model)
    model.model_type = "language_model"
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=BACKEND,
        model_config=model,
        engine_config=omega_conf_to_dataclass(config.verl.engine),
        optimizer_config=optimizer,
        checkpoint_config=omega_conf_to_dataclass(config.verl.checkpoint),
    )
    engine.initialize()
    return engine


def _step(
    engine: Any, dataset: Any, step: int, settings: DictConfig, rank: int, world: int, stop: StopRequest
) -> tuple[float, float, int, bool]:
    """Runs step ``step`` (0-based); returns the global (loss, gradient norm, tokens, whether any rank asks to stop)."""
    import torch
    import torch.distributed as dist

    rows = sampler.step_rows(step, len(dataset), settings.batch_size, settings.seed).tolist()
    plan = sampler.deal({row: dataset.lengths[row] for row in rows}, world, settings.max_tokens_per_gpu)
    supervised = sum(dataset.supervised(row) for row in rows)
    with engine.train_mode():
        batches = [[dataset[row] for row in micro] for micro in plan[rank]]
        share, grad_norm = engine.train_step(batches, supervised)
    engine.lr_scheduler_step()
    shared = torch.tensor([share / world, float(stop.asked)], dtype=torch.float64)
    dist.all_reduce(shared)
    return shared[0].item(), grad_norm, sum(dataset.lengths[row] for row in rows), shared[1].item() > 0


def main() -> None:
    """Entry of one rank."""
    stop = StopRequest()
    run, attempt = Run(Path(sys.argv[1])), Path(sys.argv[2])
    try:
        code = train(run, attempt, configs.read(attempt / "config.yaml"), stop, sys.argv[3])
    except ValueError as e:
        print(f"warmstart: {e}", flush=True)
        code = USAGE
    sys.exit(code)


if __name__ == "__main__":
    main()
