"""The RL models of a run: checkpoints of its RL starts, and their exports and evaluations, which
may outlive the checkpoints.
"""

from __future__ import annotations

import re
from typing import Any

from common.errors import UserError
from common.files import MANIFEST, read_json, sha256_file
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import BASE, IN_FOLDERS, ModelLabel
from trainer.run.rl_start import RlStart, gpus_of


def exported(run: Run) -> list[ModelLabel]:
    """Returns RL's models with a complete export, those of one start in ascending order."""
    found = (p.name for p in run.export(BASE).parent.glob("rl_*") if is_complete(p))
    return sorted(ModelLabel.parse(name) for name in found if re.fullmatch(IN_FOLDERS, name))


def known(run: Run) -> list[ModelLabel]:
    """Returns RL's models that have a checkpoint, an export or an evaluation; those of the newest
    start last, those of deleted starts first.
    """
    starts = [start for start in RlStart.find(run.rl) if start.hash]
    found = {ModelLabel(rl=step, start=start.hash) for start in starts for step in start.steps}
    found |= set(exported(run))
    found |= {parse_evaluation(folder)[1] for folder in run.evaluations}
    order = [start.hash for start in starts]
    return sorted(
        (label for label in found if label.rl is not None),
        key=lambda x: (order.index(x.start) if x.start in order else -1, x),
    )


def resolve(run: Run, label: ModelLabel) -> ModelLabel:
    """Returns the full label of one of RL's models: for ``rl-N`` that of the newest start that has
    step N. Another label is returned as it is.

    Raises UserError when the run has no such model.
    """
    if label.rl is None:
        return label
    there = known(run)
    for found in reversed(there):
        if found.rl == label.rl and label.start in (None, found.start):
            return found
    if not there:
        raise UserError(
            f"{run.root} has no checkpoint of RL: warmstart rl {run.root} prepares RL, and the "
            "script that it writes trains"
        )
    words = ", ".join(found.word for found in there)
    raise UserError(
        f"{run.root} has no model {label.word} of RL (available: {words}): warmstart eval "
        f"{run.root} {there[-1].word}"
    )


def start_of(run: Run, label: ModelLabel) -> RlStart | None:
    """Returns the start that one of RL's models comes from; None if it was deleted."""
    return next((s for s in RlStart.find(run.rl) if s.hash and s.hash == label.start), None)


def facts(start: RlStart) -> dict[str, Any]:
    """Returns how a start trains, from its newest attempt's configuration, for reports and
    manifests.

    ``problems`` is the number of problems, ``in_sft`` how many of them are also rows of SFT;
    ``never`` and ``always`` count those that were left out because no or every rollout was right;
    ``prompts`` and ``rollouts`` are per step and per prompt; ``budget`` is in tokens.
    """
    made, used = read_json(start.manifest), start.used
    actor, rollout = used.actor_rollout_ref.actor, used.actor_rollout_ref.rollout
    return {
        "start": start.root.name,
        "manifest": sha256_file(start.manifest),
        "problems": made["mixed"],
        **{key: made[key] for key in ("in_sft", "never", "always")},
        "total": used.trainer.total_training_steps,
        "prompts": used.data.train_batch_size,
        "rollouts": rollout.n,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "budget": used.data.max_response_length,
        "lr": actor.optim.lr,
        "kl": actor.use_kl_loss,
        "gpus": gpus_of(used),
    }


def sft_step(run: Run, label: ModelLabel) -> int | None:
    """Returns the step of SFT that one of RL's models started from; None if neither its start nor
    its export exists.
    """
    start, export = start_of(run, label), run.export(label) / MANIFEST
    if start is not None:
        return read_json(start.manifest)["step"]
    return read_json(export)["step"] if export.exists() else None
