"""The rehearsal of a training job, on a real cluster, and its tries with a stand-in for srun."""

import shutil
from pathlib import Path

import pytest

from tests.slurm.conftest import Site
from tests.slurm.test_jobs import decisions
from trainer.run.folder import Run


def test_a_knob_that_these_nodes_cannot_run_is_named(site: Site, tmp_path: Path) -> None:
    variables = f"CXX=/bin/false,TORCHINDUCTOR_CACHE_DIR={tmp_path}"
    words = ("run.name=knob", "train.compile=true", "train.prefetch=true")
    job = site.train(*words, options=(f"--export=ALL,{variables}",))
    ended, log, run = site.cluster.wait(job), site.log(job), site.run("knob")
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), log
    (verdict,) = [line for line in log.splitlines() if "on these nodes" in line]
    assert verdict.startswith("warmstart: train.compile=true fails on these nodes (rank ")
    assert "InvalidCxxCompiler: No working C++ compiler found in" in verdict
    assert f"log: runs/knob/{run.rehearsal_log.name})" in verdict
    assert verdict.endswith("run the same command with train.compile=false")
    assert "train.prefetch=false" not in log, "the next knob was tried"
    said = run.rehearsal_log.read_text()
    assert "Traceback" in said and "step 2  loss " in said
    assert (run.attempts, run.config.exists(), decisions(run)) == ([], False, [("refused", False)])


def test_a_job_rehearses_before_it_trains(site: Site, trained: tuple[str, Run]) -> None:
    job, run = trained
    log = site.log(job)
    assert log.index("the rehearsal passed") < log.index("step 1/44  loss ")
    assert "0: step 2  loss " in run.rehearsal_log.read_text()


@pytest.mark.slow
def test_a_rehearsal_that_takes_too_long_does_not_stop_training(site: Site, tmp_path: Path) -> None:
    """Nor is it repeated when the run has a checkpoint."""
    planted = Site(site.cluster, tmp_path / "planted")
    shutil.copytree(site.folder, planted.folder, ignore=shutil.ignore_patterns("runs"))
    module = planted.folder / "trainer" / "rehearsal" / "knobs.py"
    text = module.read_text()
    assert "SECONDS = 180\n" in text
    module.write_text(text.replace("SECONDS = 180\n", "SECONDS = 4\n"))
    words = ("run.name=late", "train.prefetch=true", "train.max_steps=2", "train.save_every=1")
    job = planted.train(*words)
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", planted.log(job)
    assert "the rehearsal did not end within 4 s" in planted.log(job)
    assert planted.run("late").checkpoints == [1, 2]
    again = planted.train(*words)
    assert site.cluster.wait(again)["JobState"] == "COMPLETED", planted.log(again)
    assert "rehears" not in planted.log(again)
