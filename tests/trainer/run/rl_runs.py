"""Starts of RL that nobody ran: what ``warmstart rl`` and verl write there, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from common.files import write_json, write_text
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart

VALUES: dict[str, Any] = {
    "data": {"train_batch_size": 16, "max_response_length": 512},
    "actor_rollout_ref": {
        "actor": {"use_kl_loss": False, "optim": {"lr": 1e-6}},
        "rollout": {"n": 8, "temperature": 1.0, "top_p": 1.0},
    },
    "trainer": {"total_training_steps": 40, "nnodes": 1, "n_gpus_per_node": 2},
}


def begun(
    run: Run,
    step: int,
    name: str,
    *,
    checkpoints: Sequence[int] = (),
    lines: Sequence[dict[str, Any]] = (),
) -> RlStart:
    """A start from the SFT ``step`` whose hash is ``name``, with empty checkpoints and the metrics
    ``lines``.
    """
    start = RlStart(run.rl_start(step, name))
    write_text(start.config, OmegaConf.to_yaml(OmegaConf.create(VALUES)))
    counts = {"mixed": 120, "in_sft": 7, "never": 60, "always": 20}
    write_json(start.manifest, {"step": step, **counts})
    for number in checkpoints:
        start.weights(number).mkdir(parents=True)
    if checkpoints:
        note = start.checkpoints / "latest_checkpointed_iteration.txt"
        note.write_text(str(max(checkpoints)))
    if lines:
        write_text(start.metrics, "".join(json.dumps(line) + "\n" for line in lines))
    return start


def line(step: int, reward: float, **more: float | None) -> dict[str, Any]:
    """A line of metrics as verl writes it; ``more`` are held_out, truncated and longest."""
    data: dict[str, float | None] = {
        "critic/score/mean": reward,
        "actor/entropy": 0.5 - step / 100,
        "response_length/mean": 100.0 + step,
        "response_length/max": more.get("longest", 400.0),
        "timing_s/step": 36.0,
    }
    if "held_out" in more:
        data["val-core/heldout/acc/mean@1"] = more["held_out"]
        data["val-aux/heldout/reward/mean@1"] = -1.0
        data["val-aux/heldout/truncated/mean@1"] = more.get("truncated", 0.25)
    return {"step": step, "data": data}
