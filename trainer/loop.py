"""The training loop of one rank.

    python -m trainer.loop RUN ATTEMPT RENDEZVOUS      (RANK, LOCAL_RANK and WORLD_SIZE in the environment)

Replaces verl's own loop, which drops the rows that do not fill a step, has no stop, and resumes an epoch
off; model, sharding and optimizer are verl's engine.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep.errors import StageFailed
from data_prep.files import MANIFEST, sha256_file, write_json
from trainer import config as configs
from trainer import ranks, sampler
from trainer.metrics import rebuild
from trainer.rundir import Run
from trainer.stopping import STOPPED, StopRequest

OUTCOME = "outcome.json"
FAILED, USAGE = 1, 2
SKIPS_IN_A_ROW = 3
"""Steps without a finite gradient after which a run stops: the weights will not mend themselves."""


@dataclass(frozen=True)
class Job:
    """What a rank has before its first step."""

    rank: int
    attempt: Path
    rows: Any
    held_out: Any
    engine: Any
    per_epoch: int
    total: int
    first: int
    """Steps that are trained already."""


def train(run: Run, attempt: Path | None, config: DictConfig, stop: StopRequest, rendezvous: str) -> int:
    """Trains from the newest checkpoint to the last step, or to an agreed stop; returns the exit code.

    Collective over the ranks. ``attempt`` is where metrics, traces and the outcome go; rank 0 must know it.
    Raises StageFailed when the gradients stay non-finite.
    """
    import torch.distributed as dist

    try:
        job = _set_up(run, attempt, config, rendezvous)
    except ValueError as e:
        print(f"warmstart: {e}", flush=True)
        return USAGE
    stop.arm()
    step = _steps(run, config, job, stop)
    status = "finished" if step == job.total else "stopped"
    if job.rank == 0:
        rebuild(run)
        write_json(job.attempt / OUTCOME, {"status": status, "step": step, "total": job.total})
    dist.barrier()
    dist.destroy_process_group()
    return exit_code(status)


def _set_up(run: Run, attempt: Path | None, config: DictConfig, rendezvous: str) -> Job:
    from trainer import checkpoint
    from trainer.build import build_engine
    from trainer.dataset import TokenDataset

    ranks.check_device(config.device)
    rank = ranks.join(config.device, rendezvous)
    # A shared file system may show ranks different checkpoints for a while.
    found, step = ranks.agree((attempt, run.checkpoints[-1] if run.checkpoints else 0))
    rows, held_out = (TokenDataset(path) for path in (config.verl.data.train_files, config.verl.data.val_files))
    per_epoch = sampler.steps_per_epoch(len(rows), config.train.batch_size)
    total = min(per_epoch * config.train.epochs, config.train.max_steps or sys.maxsize)
    engine = build_engine(config, total)
    if step:
        checkpoint.load(run, step, engine)
    return Job(rank, found, rows, held_out, engine, per_epoch, total, step)


def _steps(run: Run, config: DictConfig, job: Job, stop: StopRequest) -> int:
    """Runs the steps that are left, or until a stop is asked for; returns the last one that was run."""
    from trainer import checkpoint
    from trainer.meters import Meter
    from trainer.profiling import Profiler
    from trainer.stepping import Stepper
    from trainer.tracking import Tracker

    settings, step = config.train, job.first
    stepper, meter = Stepper(job.engine, job.rows, settings), Meter(job.engine, job.total, step)
    profiler = Profiler(settings.profile_steps, job.total, job.attempt / f"trace-rank{job.rank}.json.gz")
    tracker = Tracker(config, run.root, job.attempt, step) if job.rank == 0 else None
    stopped, skips = False, 0
    with tracker or nullcontext():
        while step < job.total and not stopped:
            with profiler.step(step + 1):
                done = stepper.train(step)
            step += 1
            border = step % job.per_epoch == 0 or step == job.total
            validates = step % settings.validate_every == 0 if settings.validate_every else border
            val_loss = stepper.validate(job.held_out) if (validates or step == job.total) and job.held_out else None
            metrics, stopped = meter.gather(step, (step - 1) // job.per_epoch + 1, done, stop.asked, val_loss)
            if tracker is not None:
                tracker.log(metrics)
            skips = skips + 1 if metrics.skipped else 0
            if skips == SKIPS_IN_A_ROW:
                raise StageFailed(
                    f"no finite gradient in {skips} steps in a row (loss {metrics.loss}); the rows of step {step}: "
                    + ", ".join(job.rows.id(row) for row in done.rows)
                )
            if border or stopped:
                checkpoint.save(run, step, job.engine, {"dataset": dataset_identity(config)})
    return step


def dataset_identity(config: DictConfig) -> str:
    """What names the dataset's content: the hash of its manifest. Raises ValueError when it is not built."""
    manifest = Path(config.data.dir) / config.data.name / MANIFEST
    if not manifest.exists():
        raise ValueError(f"dataset {config.data.name} is not built: warmstart data {config.name}")
    return sha256_file(manifest)


def exit_code(status: str) -> int:
    """The exit code of an attempt's outcome."""
    return {"finished": 0, "stopped": STOPPED}[status]


def main() -> None:
    """Entry of one rank."""
    stop = StopRequest()
    run, attempt = Run(Path(sys.argv[1])), Path(sys.argv[2])
    try:
        code = train(run, attempt, configs.read(attempt / "config.yaml"), stop, sys.argv[3])
    except StageFailed as e:
        print(f"warmstart: {e}", flush=True)
        code = FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
