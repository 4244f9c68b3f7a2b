"""RL on the quickstart's task, and what it brought: python tools/rl_quickstart.py [SEED]

From a checkpoint of the quickstart that is right about half of the time: GRPO by verl on sums that
SFT trained on, then start and end on sums that neither saw. Rerun it to go on.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from common.files import write_jsonl
from data_prep.output.folder import dataset_folder
from data_prep.output.write import ROWS
from eval import evaluate
from eval.rl.prepare import prepare
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete
from trainer.run.model_label import ModelLabel

RUN, STEP, PROBLEMS = "tiny", 225, 256
UNSEEN = "unseen"
"""Name of the benchmark: the sums of two numbers of two digits that the dataset does not have."""
STEPS = 24
ON_ONE_MACHINE = ["cluster.nodes=1", "cluster.gpus_per_node=1"]
GRPO = [
    "data.train_batch_size=64",
    "actor_rollout_ref.actor.ppo_mini_batch_size=64",
    # A model of this size needs a far higher rate than a pretrained one.
    "actor_rollout_ref.actor.optim.lr=5e-5",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=5",
    f"trainer.total_training_steps={STEPS}",
    "trainer.test_freq=8",
    "trainer.save_freq=8",
]


def main(seed: str = "0") -> None:
    """Prints the comparison of start and end. Ends with the exit code of a command that fails."""
    found = Run.find(RUN)
    if found is None or STEP not in found.checkpoints:
        sys.exit(f"{RUN} has no checkpoint of step {STEP}: make quickstart")
    config = configs.read(found.config)
    folder = Path(config.data.dir) / UNSEEN
    write_jsonl(folder / f"{UNSEEN}.jsonl", unseen(dataset_folder(config) / ROWS))
    if not is_complete(found.export(STEP)):
        warmstart("export", RUN, str(STEP))
    words = [*ON_ONE_MACHINE, f"eval.seed={seed}"]
    started = prepare(found, config, STEP, words, count=PROBLEMS)
    if started.folder is None:
        warmstart(*shlex.split(started.command)[1:])
        started = prepare(found, config, STEP, words, count=PROBLEMS)
    call(*shlex.split(started.command), *GRPO)
    asked = [f"eval.benchmarks={folder}", f"eval.sets=[{UNSEEN}]", "eval.rollouts=8"]
    asked += ["eval.temperature=1.0", "eval.top_p=1.0"]
    labels = [ModelLabel(STEP), ModelLabel.parse(f"rl-{STEPS}")]
    for label in labels:
        warmstart("eval", RUN, label.word, *asked)
    planned = [evaluate.plan(configs.amend(config, asked), found, label) for label in labels]
    warmstart("compare", *(str(plan.folder) for plan in planned))


def unseen(rows: Path) -> list[dict[str, str]]:
    """Returns the problems that are in no row, in either order of their numbers."""
    import pyarrow.parquet as pq

    texts = pq.read_table(rows, columns=["problem"]).column("problem").to_pylist()
    seen = {tuple(sorted(map(int, re.findall(r"\d+", text)))) for text in texts}
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100) if (a, b) not in seen]
    return [
        {"id": f"{a}+{b}", "problem": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs
    ]


def warmstart(*words: str) -> None:
    """Runs the command of this environment."""
    call(sys.executable, "-m", "warmstart", *words)


def call(*words: str) -> None:
    """Runs a command; ends with its exit code if it is not 0."""
    print(f"$ {shlex.join(words)}", flush=True)
    if code := subprocess.call(words):
        sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
