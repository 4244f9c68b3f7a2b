"""RL jobs on the login node: what is not prepared or does not fit is refused; a dry run."""

import json
import shlex
from pathlib import Path

from common.files import write_json
from tests.slurm.commands.conftest import call, dry_run, submitted
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart


def test_what_is_not_prepared_does_not_reach_the_queue(checkout: Path) -> None:
    done = call(checkout, "", "slurm/rl.sh", "nothing")
    assert done.returncode == 2 and "no run at nothing" in done.stderr
    run = Run(checkout / "runs" / "bare")
    configs.write(configs.load("tiny", ["run.name=bare"]), run.config)
    done = call(checkout, "", "slurm/rl.sh", "bare", "7")
    assert done.returncode == 2 and "for RL from step 7: warmstart rl runs/bare 7" in done.stderr
    for word in ("base", "rl-20"):
        done = call(checkout, "", "slurm/rl.sh", "bare", word)
        assert done.returncode == 2 and f"give its number, not {word}" in done.stderr
    assert submitted(checkout) is None
    start = RlStart(run.rl / "step_7-0")
    start.root.mkdir(parents=True)
    values = {"trainer": {"nnodes": 4, "n_gpus_per_node": 4}, "data": {"train_batch_size": 48}}
    start.config.write_text(json.dumps(values))
    write_json(start.manifest, {"step": 7})
    recipe = run.config.read_text().replace("device: cpu", "device: cuda")
    run.config.write_text(recipe)
    done = call(checkout, "", "slurm/rl.sh", "-N", "5", "bare", "--gpus-per-node=4")
    assert (
        done.returncode == 2 and "train_batch_size=48 is not a multiple of 20 GPUs" in done.stderr
    )
    assert submitted(checkout) is None
    shown, _ = dry_run(checkout, "", "slurm/rl.sh", "--dry-run", "bare", "-N3", "trainer.a=1")
    line = next(line for line in shown if "ray_node" in line)
    words = shlex.split(line)
    sizes = ["trainer.nnodes=3", "trainer.n_gpus_per_node=4", "trainer.a=1"]
    assert words[-5:] == ["rl", str(start.root.resolve()), *sizes]
    assert "RAY_NODE_OPTIONS=--num-cpus=32" in words
