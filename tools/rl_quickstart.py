"""RL on the quickstart's task, and a comparison of the model before and after.

    python tools/rl_quickstart.py [SEED]           GRPO, then start against end
    python tools/rl_quickstart.py --picture FILE   the curves of all seeds so far

Starts from the quickstart's last checkpoint. verl's GRPO trains on the sums that the dataset left
over; then start and end are compared on sums that neither SFT nor RL has seen, on which the start
is right in less than half of its rollouts. Rerun it to resume.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from common.files import read_jsonl, write_jsonl
from common.plots import Line, Panel, panels
from data_prep.output.folder import dataset_folder
from data_prep.output.write import ROWS, SPARE
from eval import evaluate
from eval.rl.prepare import prepare
from trainer.recipe import load as configs
from trainer.run import rl_metrics
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart

RUN, STEPS = "tiny", 24
UNSEEN = "unseen"
"""Name of the benchmark: the sums of two two-digit numbers that are not in the dataset."""
TWO_RANKS = ("cluster.nodes=1", "cluster.gpus_per_node=2")
GRPO = (
    "data.train_batch_size=64",
    "actor_rollout_ref.actor.ppo_mini_batch_size=64",
    # A model of this size needs a far higher rate than a pretrained one.
    "actor_rollout_ref.actor.optim.lr=5e-5",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=5",
    # vLLM and the trainer agree in fp32, so the rollouts' own probabilities serve as the old ones.
    "algorithm.rollout_correction.bypass_mode=true",
    # On a CPU, attention over packed rollouts costs the square of a micro-batch's tokens.
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    f"trainer.total_training_steps={STEPS}",
    "trainer.total_epochs=99",
    "trainer.test_freq=8",
    "trainer.save_freq=8",
    "actor_rollout_ref.rollout.val_kwargs.n=8",
    "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
    "actor_rollout_ref.rollout.val_kwargs.top_p=1.0",
)


def main() -> None:
    """Trains and compares, or draws. Ends with the exit code of a command that fails."""
    parser = argparse.ArgumentParser(description="RL on the quickstart's task.")
    parser.add_argument("seed", nargs="?", type=int, default=0, help="default 0")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw all seeds so far")
    asked = parser.parse_args()
    run = Run.find(RUN)
    if run is None or not run.exports:
        sys.exit(f"{RUN} has no export: make quickstart")
    if asked.picture:
        draw(run, asked.picture)
    else:
        reinforce(run, asked.seed)


def reinforce(run: Run, seed: int) -> None:
    """Trains, evaluates start and end, and prints their comparison."""
    config, step = configs.read(run.config), run.exports[-1]
    benchmarks = Path(config.data.dir) / UNSEEN
    write_jsonl(benchmarks / f"{UNSEEN}.jsonl", unseen(dataset_folder(config)))
    words = [*TWO_RANKS, f"eval.seed={seed}"]
    prepared = prepare(run, config, step, words)
    if prepared.folder is None:
        call(sys.executable, "-m", *shlex.split(prepared.command))
        prepared = prepare(run, config, step, words)
    assert prepared.folder is not None
    call(*shlex.split(prepared.command), *GRPO)
    asked = [f"eval.benchmarks={benchmarks}", f"eval.sets=[{UNSEEN}]", "eval.rollouts=8"]
    asked += ["eval.temperature=1.0", "eval.top_p=1.0"]
    labels = [ModelLabel(step), ModelLabel(rl=STEPS, start=RlStart(prepared.folder).hash)]
    for label in labels:
        call(sys.executable, "-m", "warmstart", "eval", RUN, label.word, *asked)
    plans = [evaluate.plan(configs.amend(config, asked), run, label) for label in labels]
    call(sys.executable, "-m", "warmstart", "report", RUN)
    call(sys.executable, "-m", "warmstart", "compare", *(str(plan.folder) for plan in plans))


def unseen(dataset: Path) -> list[dict[str, str]]:
    """Returns the sums that are in no row and not left over for RL, whichever number comes
    first.
    """
    import pyarrow.parquet as pq

    texts = pq.read_table(dataset / ROWS, columns=["problem"]).column("problem").to_pylist()
    texts += [line["problem"] for line in read_jsonl(dataset / SPARE)]
    seen = {tuple(sorted(map(int, re.findall(r"\d+", text)))) for text in texts}
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100) if (a, b) not in seen]
    return [
        {"id": f"{a}+{b}", "problem": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs
    ]


def draw(run: Run, path: Path) -> None:
    """Draws training reward and held-out accuracy by step, with a line per finished start."""
    done = [start for start in RlStart.find(run.rl) if start.latest == STEPS]
    rewards, accuracies = [], []
    for start, kind in zip(done, ("rl", "sft", "held-out", "base"), strict=False):
        name, steps = f"seed {start.used.data.seed}", rl_metrics.read(start)
        reward = {s.step: s.reward for s in steps if s.reward is not None}
        held_out = {s.step: s.held_out for s in steps if s.held_out is not None}
        rewards.append(Line(name, reward, kind))
        accuracies.append(Line(name, held_out, kind, dots=True))
    validated = Panel("Held-out accuracy", accuracies, share=True)
    panels(path, [Panel("Training reward", rewards), validated])


def call(*words: str) -> None:
    """Runs a command; ends with its exit code if it is not 0."""
    print(f"$ {shlex.join(words)}", flush=True)
    if code := subprocess.call(words):
        sys.exit(code)


if __name__ == "__main__":
    main()
