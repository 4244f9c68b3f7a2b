"""The training loop of one rank.

    python -m trainer.loop RUN ATTEMPT RENDEZVOUS      (RANK, LOCAL_RANK and WORLD_SIZE in the environment)

Replaces verl's own loop, which drops the rows that do not fill a step, has no stop, and resumes an epoch
off; model, sharding and optimizer are verl's engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

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


def train(run: Run, attempt: Path | None, config: DictConfig, stop: StopRequest, rendezvous: str) -> int:
    """Trains from the newest checkpoint to the last step, or to an agreed stop; returns the exit code.

    Collective over the ranks. ``attempt`` is where metrics, traces and the outcome go; rank 0 must know it.
    Raises ValueError for what cannot be trained here, StageFailed when the gradients stay non-finite.
    """
    import torch.distributed as dist

    from trainer import checkpoint
    from trainer.build import build_engine
    from trainer.dataset import TokenDataset
    from trainer.meters import Meter
    from trainer.profiling import Profiler
    from trainer.stepping import Stepper
    from trainer.tracking import Tracker

    ranks.check_device(config.device)
    rank = ranks.join(config.device, rendezvous)
    attempt = ranks.agree(attempt)
    rows = TokenDataset(config.verl.data.train_files)
    held_out = TokenDataset(config.verl.data.val_files)
    settings = config.train
    per_epoch = sampler.steps_per_epoch(len(rows), settings.batch_size)
    total = min(per_epoch * settings.epochs, settings.max_steps or sys.maxsize)
    engine = build_engine(config, total)
    step = run.checkpoints[-1] if run.checkpoints else 0
    if step:
        checkpoint.load(run, step, engine)
    stepper, meter = Stepper(engine, rows, settings), Meter(engine, total, step)
    profiler = Profiler(settings.profile_steps, total, attempt / f"trace-rank{rank}.json.gz")
    tracker = Tracker(config, run.root, step) if rank == 0 else None
    stop.arm()
    stopped, skips = False, 0
    with _metrics_log(attempt if rank == 0 else None) as log:
        while step < total and not stopped:
            with profiler.step(step + 1):
                done = stepper.train(step)
            step += 1
            border = step % per_epoch == 0 or step == total
            validates = step % settings.validate_every == 0 if settings.validate_every else border
            value = stepper.validate(held_out) if (validates or step == total) and len(held_out) else None
            metrics, stopped = meter.gather(step, (step - 1) // per_epoch + 1, done, stop.asked, value)
            if tracker is not None:
                log.write(metrics.json())
                log.flush()
                tracker.log(metrics)
                print(metrics.line(), flush=True)
            skips = skips + 1 if metrics.skipped else 0
            if skips == SKIPS_IN_A_ROW:
                raise StageFailed(
                    f"no finite gradient in {skips} steps in a row (loss {metrics.loss}); the rows of step {step}: "
                    + ", ".join(rows.id(row) for row in done.rows)
                )
            if border or stopped:
                checkpoint.save(run, step, engine, {"dataset": dataset_identity(config)})
    status = "finished" if step == total else "stopped"
    if tracker is not None:
        tracker.close()
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


def main() -> None:
    """Entry of one rank."""
    stop = StopRequest()
    run, attempt = Run(Path(sys.argv[1])), Path(sys.argv[2])
    try:
        code = train(run, attempt, configs.read(attempt / "config.yaml"), stop, sys.argv[3])
    except (ValueError, StageFailed) as e:
        print(f"warmstart: {e}", flush=True)
        code = USAGE if isinstance(e, ValueError) else FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
