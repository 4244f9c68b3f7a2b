"""What RL starts from in these tests, and rollouts that no engine made."""

import shlex
from collections.abc import Callable
from pathlib import Path

from data_prep import benchmarks
from data_prep.schema import Rollout
from eval import evaluate, ledger
from trainer import config as configs
from trainer.rundir import Run

STEP = 7


def sample(run: Run, command: str, right: Callable[[int], int], length: Callable[[int], int] = lambda i: 20) -> Path:
    """What ``command``, an evaluation, would leave when problem i has so many right rollouts, of so many tokens."""
    name, verb, root, step, *overrides = shlex.split(command)
    assert (name, verb, root) == ("warmstart", "eval", str(run.root))
    config = configs.amend(configs.read(run.config), overrides)
    planned = evaluate.plan(config, run, f"step_{step}")
    planned.folder.mkdir(parents=True)
    with (planned.folder / ledger.ROLLOUTS).open("w") as f:
        for i, p in enumerate(benchmarks.load(Path(config.eval.benchmarks), list(config.eval.sets), None)):
            for k in range(config.eval.rollouts):
                answer, tokens = (p.answer, length(i)) if k < right(i) else ("0", 60)
                text = f"<think>\n?\n</think>\n\nThe answer is \\boxed{{{answer}}}."
                ledger.append(f, Rollout((p.set, p.id, k), 0, text, tokens, "stop", "engine-0", 0.1))
    return evaluate.evaluate(config, run, f"step_{step}")
