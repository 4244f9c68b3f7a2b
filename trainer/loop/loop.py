"""The training loop of one rank.

    python -m trainer.loop.loop RUN ATTEMPT RENDEZVOUS

The environment has RANK, LOCAL_RANK and WORLD_SIZE.

Replaces verl's own loop, which drops rows that do not fill a step, cannot stop early, and skips an
epoch when it resumes at an epoch's end. Model, sharding and optimizer are verl's engine.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from common.errors import StageFailed, UserError
from common.exit_codes import FAILED, STOPPED, USAGE
from common.files import MANIFEST, read_json, write_json
from data_prep.output.folder import dataset_folder, token_file
from trainer.batching import sampler
from trainer.process import process_group
from trainer.process.deadline import Deadline, job_end
from trainer.process.gpu_binding import check_device
from trainer.process.stop_signal import StopRequest
from trainer.process.watchdog import SET_UP_MINUTES, Watchdog
from trainer.recipe import load as configs
from trainer.run.folder import Attempt, Run
from trainer.run.step_metrics import StepMetrics, rebuild

if TYPE_CHECKING:
    from trainer.batching.dataset import TokenDataset
    from trainer.checkpoint.saver import Saver
    from trainer.engine.fsdp import Engine


@dataclass(frozen=True)
class Job:
    """The state of a rank before its first step."""

    rank: int
    attempt: Attempt
    rows: TokenDataset
    held_out: TokenDataset
    engine: Engine
    saver: Saver
    watchdog: Watchdog
    per_epoch: int
    """Steps per epoch."""
    total: int
    """Steps of the run."""
    first: int
    """Number of steps trained before this attempt."""
    unvalidated: StepMetrics | None
    """Metrics of step ``first`` if a stop interrupted its validation."""

    def epoch(self, step: int) -> int:
        """Returns the epoch of ``step``; both count from 1."""
        return (step - 1) // self.per_epoch + 1

    def is_due(self, step: int, every: int | None) -> bool:
        """Returns whether to act after ``step``: every ``every`` steps, or after each epoch when
        that is not set; always after the last step.
        """
        return step == self.total or step % (every or self.per_epoch) == 0


def train(
    run: Run, attempt: Attempt | None, config: DictConfig, stop: StopRequest, rendezvous: str
) -> int:
    """Trains from the newest checkpoint to the last step, or to an agreed stop; returns the exit
    code.

    Collective over the ranks. Only rank 0 needs ``attempt``. Raises StageFailed when the gradients
    stay non-finite, or checkpoints cannot be saved.
    """
    import torch.distributed as dist

    try:
        job = _set_up(run, attempt, config, rendezvous)
    except UserError as e:
        print(f"warmstart: {e}", flush=True)
        return USAGE
    stop.arm()
    try:
        step, finished, alarm = _steps(run, config, job, stop)
    except StageFailed as e:
        _conclude(run, job, {"status": "failed", "reason": str(e)})
        raise
    finally:
        stop.close()
    status = "finished" if finished else "stopped"
    outcome = {"status": status, "step": step, "total": job.total}
    _conclude(run, job, outcome if finished or alarm is None else outcome | {"alarm": alarm})
    dist.barrier()
    dist.destroy_process_group()
    job.watchdog.close()
    return exit_code(status)


def _set_up(run: Run, attempt: Attempt | None, config: DictConfig, rendezvous: str) -> Job:
    import torch.distributed as dist

    from trainer.batching.dataset import TokenDataset
    from trainer.checkpoint import checkpoint, rng
    from trainer.checkpoint.retention import Retention
    from trainer.checkpoint.saver import Saver
    from trainer.engine.build import build_engine

    settings = config.train
    check_device(config.device)
    # Longer than the watchdog waits, because its stack dump says more than a timeout does.
    timeout = timedelta(minutes=2 * max(SET_UP_MINUTES, settings.hang_minutes))
    rank = process_group.join(config.device, rendezvous, timeout)
    # From rank 0, because a shared file system may show ranks different checkpoints for a while.
    found, step = process_group.agree((attempt, run.checkpoints[-1] if run.checkpoints else 0))
    watchdog = Watchdog(settings.hang_minutes, found.stacks(rank))
    rows, held_out = (
        TokenDataset(token_file(dataset_folder(config), split)) for split in ("train", "test")
    )
    per_epoch = sampler.steps_per_epoch(len(rows), settings.batch_size)
    total = min(per_epoch * settings.epochs, settings.max_steps or sys.maxsize)
    engine = build_engine(config, total)
    group = dist.new_group(backend="gloo", timeout=timeout)
    saver, unvalidated = Saver(run, engine, Retention.of(settings), watchdog, group), None
    rng.seed(settings.seed, 0, rank)
    if step:
        saved = checkpoint.load(run.checkpoint(step), engine, settings.seed, group)
        assert saved["step"] == step == engine.lr_scheduler.last_epoch
        saver.seconds = max(saver.seconds, read_json(run.checkpoint(step) / MANIFEST)["seconds"])
        unvalidated = None if saved["validated"] else StepMetrics(**saved["metrics"])
    return Job(
        rank, found, rows, held_out, engine, saver, watchdog, per_epoch, total, step, unvalidated
    )


def _steps(
    run: Run, config: DictConfig, job: Job, stop: StopRequest
) -> tuple[int, bool, str | None]:
    """Trains the remaining steps or until a stop; returns (the last step, whether training and
    validation are done, the alarm that asked for a stop).
    """
    from trainer.loop.gather_metrics import Meter
    from trainer.loop.loggers import Tracker
    from trainer.loop.profiler import Profiler
    from trainer.loop.recorder import Entry, Recorder
    from trainer.loop.sentinel import Sentinel
    from trainer.loop.step import Stepper

    settings, saver = config.train, job.saver
    stepper = Stepper(job.engine, job.rows, settings, range(job.first, job.total))
    meter = Meter(job.engine, config.cluster, job.total, job.first)
    judged = job.first if job.unvalidated is None else job.first - 1
    sentinel = Sentinel(run, config, job.rows, job.total, judged)
    profiler = Profiler(settings.profile_steps, job.total, job.attempt.trace(job.rank))
    deadline = Deadline(job_end(os.environ) if job.rank == 0 else None)
    # Read by rank 0 only: a shared file system may show the file to the others later.
    identity = read_json(job.attempt.provenance)["identity"] if job.rank == 0 else {}
    tracker = Tracker(config, run, job.attempt, job.first) if job.rank == 0 else None
    recorder = Recorder(meter, sentinel, deadline, tracker, job.rows, saver.settle)
    # A step is recorded while the next one runs, unless how it ended says whether there is one.
    late = job.engine.skips_on_device and not sentinel.stopping

    def asked() -> bool:
        job.watchdog.alive()  # called before each micro-batch of a validation
        return stop.asked or deadline.near(saver.seconds, running=int(late))

    step, stopped, validated = job.first, False, True
    running: Entry | None = None
    with tracker or nullcontext(), profiler, stepper:
        if job.unvalidated is not None:
            means = stepper.validate(job.held_out, asked)
            validated, stopped = means is not None, means is None
            if means is not None:
                # A stop for its alarm waits for the next step, because this one is saved already.
                metrics = sentinel.judge(job.unvalidated.with_held_out(means), None)
                if tracker is not None:
                    tracker.log(metrics)

        while step < job.total and not stopped:
            # Train. On a GPU this step, and the one before, may still run afterwards.
            with profiler.step(step + 1):
                launched = stepper.train(step, after=None if running is None else running.launched)
            step += 1
            job.watchdog.stepped()

            # Record the step before.
            if running is not None:
                recorder.record(running)

            # Validate; None if a stop interrupts it.
            means, validated = None, True
            validates = len(job.held_out) > 0 and job.is_due(step, settings.validate_every)
            if validates:
                means = stepper.validate(job.held_out, asked)
                validated = means is not None

            # Agree, and let the step run on where nothing has to wait for its end.
            stopped, saved = process_group.any_rank(asked(), saver.ended)
            running = Entry(step, job.epoch(step), launched, means, meter.peak_gb())
            saves = stopped or saved or job.is_due(step, settings.save_every)
            if late and not (saves or validates or profiler.begins(step + 1)):
                continue

            # Record this step.
            metrics, running = recorder.record(running), None
            stopped = stopped or sentinel.held is not None

            # Save, also at a stop, and again if the last save failed.
            failed = saved and not saver.settle()
            if failed or stopped or job.is_due(step, settings.save_every):
                if tracker is not None:
                    tracker.sync()
                saver.save(
                    step, {"identity": identity, "metrics": asdict(metrics), "validated": validated}
                )
        saver.finish()
        sentinel.close()
    return step, step == job.total and validated, sentinel.held


def _conclude(run: Run, job: Job, outcome: dict[str, Any]) -> None:
    if job.rank == 0:
        rebuild(run)
        write_json(job.attempt.outcome, outcome)


def exit_code(status: str) -> int:
    """Returns the exit code for an attempt's outcome."""
    return {"finished": 0, "failed": FAILED, "stopped": STOPPED}[status]


def main() -> None:
    """Entry point of one rank."""
    stop = StopRequest()
    run, attempt = Run(Path(sys.argv[1])), Attempt(Path(sys.argv[2]))
    try:
        code = train(run, attempt, configs.read(attempt.config), stop, sys.argv[3])
    except StageFailed as e:  # on all ranks at once
        if os.environ["RANK"] == "0":
            print(f"warmstart: {e}", flush=True)
        code = FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
