"""An RL job: two nodes with a rank each, killed once, to the end."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

from common.files import MANIFEST, read_jsonl, sha256_file, write_json
from eval.rl.prepare import prepare
from tests.eval.rl.samples import STEP, sample
from tests.slurm.conftest import DATA, Site
from trainer.recipe import load as configs
from trainer.run.base_model import materialise
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart

ASKED = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "trainer.total_training_steps=3",
    "trainer.save_freq=1",
    "trainer.test_freq=-1",
    "trainer.val_before_train=false",
)


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RlStart:
    """A start of the run ``rl`` in the folder, from a model that nobody trained."""
    monkeypatch.chdir(folder)
    words = [*DATA, "run.name=rl", "eval.max_tokens=32", "eval.rollouts=2"]
    words += ["cluster.nodes=1", "cluster.gpus_per_node=1"]
    config = configs.load("tiny", words)
    run = Run(Path("runs/rl"))
    configs.write(config, run.config)
    materialise(config)
    shutil.copytree(config.model.path, run.export(STEP))
    dataset = sha256_file(Path("data/tiny") / MANIFEST)
    write_json(run.export(STEP) / MANIFEST, {"dataset": dataset, "files": {}})
    asked = ["eval.rollouts=2"]
    sample(run, prepare(run, config, STEP, asked, count=32).command, lambda i: 1, lambda i: 24)
    made = prepare(run, config, STEP, asked).folder
    assert made is not None
    return RlStart(folder / made)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_nodes_killed_once_train_to_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = prepared(site.folder, monkeypatch)
    options = ("--nodes=2", "--cpus-per-task=1", "--gpus-per-node=1", "--time=60")
    job = site.cluster.sbatch(
        *options, "--partition=gpu", "slurm/rl.sh", "rl", *ASKED, cwd=site.folder
    )

    def stepped() -> bool:
        return start.metrics.exists() and '"step": 1' in start.metrics.read_text()

    site.cluster.until(stepped, 1200, lambda: site.log(job))
    (launcher,) = (
        p
        for p in psutil.process_iter(["cmdline", "environ"])
        if "eval.rl.launch" in (p.info["cmdline"] or [])
        and (p.info["environ"] or {}).get("SLURM_JOB_ID") == job
    )
    launcher.kill()
    assert site.cluster.wait(job, 1800)["JobState"] == "COMPLETED", site.log(job)
    assert site.log(job).count("Ray has 2 of 2 nodes") == 2
    assert [line["step"] for line in read_jsonl(start.metrics)] == [1, 2, 3]
    assert start.latest == 3 and len(start.attempts) == 2
    ranks = start.checkpoints / "global_step_3" / "actor"
    assert len(list(ranks.glob("model_world_size_2_rank_*.pt"))) == 2
    (note,) = (n for n in Run(site.folder / "runs/rl").notes("requeues.jsonl") if n["requeued"])
    assert note["what"] == f"rl/{start.root.name}" and note["ended"] == "crashed"
    assert not any(
        path.name.startswith(".ray-token") for path in os.scandir(site.folder / "runs/rl")
    )
