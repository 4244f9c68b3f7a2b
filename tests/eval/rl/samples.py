"""Inputs of RL for these tests, and rollouts made without an engine."""

import shlex
from collections.abc import Callable
from pathlib import Path

from common.records import Rollout
from data_prep.benchmarks import sets
from eval import evaluate
from eval.generation import rollout_files
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

STEP = 7


def sample(
    run: Run, command: str, right: Callable[[int], int], length: Callable[[int], int] = lambda i: 20
) -> Path:
    """Writes the files of the evaluation ``command``, with ``right(i)`` right rollouts of
    ``length(i)`` tokens for problem i; returns its folder.
    """
    name, verb, root, step, *overrides = shlex.split(command)
    assert (name, verb, root) == ("warmstart", "eval", str(run.root))
    config = configs.amend(configs.read(run.config), overrides)
    planned = evaluate.plan(config, run, ModelLabel.parse(step))
    planned.folder.mkdir(parents=True)
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for i, p in enumerate(
            sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None)
        ):
            for k in range(config.eval.rollouts):
                answer, tokens = (p.answer, length(i)) if k < right(i) else ("0", 60)
                text = f"<think>\n?\n</think>\n\nThe answer is \\boxed{{{answer}}}."
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, tokens, "stop", "engine-0", 0.1)
                )
    return evaluate.evaluate(config, run, ModelLabel.parse(step))
