"""A checkout's first day on a cluster, by the lines of docs/clusters.md, with runs and datasets on
another file system: every command and every job looks in the same place.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.conftest import DATA, NODES, TINY, Site

LINES = (
    "cp slurm/site.example.env slurm/site.env",
    "source slurm/site.env",
    "make setup-gpu",
    "source .venv-gpu/bin/activate",
    "warmstart prefetch sft_4b",
    "warmstart data sft_4b",
    "warmstart doctor sft_4b",
    "slurm/sft_4b.sh --dry-run",
    "sbatch slurm/sft_4b.sh",
    "tail -F sft_4b-*.log",
)


def test_these_are_the_pages_lines() -> None:
    text = (ROOT / "docs" / "clusters.md").read_text().partition("## From a clone to a report")[2]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block
    assert tuple(line.partition("#")[0].rstrip() for line in block[1].splitlines()) == LINES


PLACES = ("/scratch/$USER", "/project/home/$SBATCH_ACCOUNT/$USER")
"""Folders of the example's and of MeluXina's file, which are on the other file system here."""


WARNING = re.compile(r"UserWarning|^  warnings\.warn\(")


def fill_in(checkout: Path, far: Path, name: str) -> None:
    """Writes the site file as a person does: a given one's text, with values of one's own."""
    text = (checkout / "slurm" / f"site.{name}.env").read_text()
    assert "your-account" in text
    text = text.replace("your-account", "math-rl")
    for place in PLACES:
        text = text.replace(place, str(far))
    # The test's cluster has no accounts, and its nodes two GPUs and no modules.
    text = text.replace("CUDA_VISIBLE_DEVICES=0,1,2,3", "CUDA_VISIBLE_DEVICES=0,1")
    text = f'module() {{ echo module "$@"; }}\n{text}'
    text += f"""
unset SBATCH_ACCOUNT SBATCH_QOS
OVERRIDES=(run.root={far}/runs data.dir={far}/data {" ".join(DATA)})
EVAL_OPTIONS=(--nodes=2 --gpus-per-node=2 --cpus-per-task=1)
VENV={sys.prefix}
"""
    (checkout / "slurm" / "site.env").write_text(text)


def beside(folder: Path, name: str = "example") -> tuple[Path, Path]:
    """A checkout in ``folder``, and a folder on its other file system."""
    checkout, far = folder / "a checkout", folder / "far"
    far.mkdir(parents=True)
    skipped = shutil.ignore_patterns("__pycache__", "site.env")
    for part in ("common", "data_prep", "trainer", "eval", "recipes", "slurm", "warmstart"):
        shutil.copytree(ROOT / part, checkout / part, ignore=skipped)
    fill_in(checkout, far, name)
    return checkout, far


def in_shell(checkout: Path, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line in a shell that has read the site file, with the tiny recipe and this Python."""
    line = line.replace("sft_4b", "tiny").replace("slurm/tiny.sh", "slurm/sft_4b.sh recipe=tiny")
    line = re.sub("^warmstart", f"'{sys.executable}' -m warmstart", line)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    words = ["bash", "-c", f"source slurm/site.env; {line}"]
    return subprocess.run(words, cwd=checkout, env=variables | more, capture_output=True, text=True)


def test_the_login_node_looks_where_the_job_does(tmp_path: Path) -> None:
    checkout, far = beside(tmp_path)
    data = in_shell(checkout, LINES[5])
    assert data.returncode == 0, data.stderr
    assert (far / "data" / "tiny" / "manifest.json").exists()
    assert not (checkout / "data").exists()
    found = in_shell(checkout, LINES[6]).stdout
    assert f"{far}/data/tiny: " in found and f"its run is {far}/runs/tiny" in found
    assert "is not built" not in found
    shown = in_shell(checkout, LINES[7]).stdout
    assert f"slurm.nodes.rank {far}/runs/tiny train tiny run.root={far}/runs" in shown
    trained = in_shell(checkout, "warmstart train sft_4b train.max_steps=1")
    assert trained.returncode == 0, trained.stderr
    assert f" {far}/runs/tiny, not running" in in_shell(checkout, "warmstart status tiny").stdout
    assert not (checkout / "runs").exists()
    shown = in_shell(checkout, "slurm/eval.sh --dry-run tiny 1").stdout
    assert f"warmstart export {far}/runs/tiny 1" in shown
    assert f"slurm.nodes.ray_node {far}/runs/tiny eval 1" in shown
    # The run keeps its values when the site changes, and is still found.
    path = checkout / "slurm" / "site.env"
    path.write_text(path.read_text().replace("/data ", "/other train.seed=9 "))
    found = in_shell(checkout, "warmstart doctor sft_4b train.max_steps=1").stdout
    assert f"{far}/data/tiny: " in found and "other values" not in found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["example", "meluxina"])
def test_the_pages_lines_up_to_the_report(site: Site, tmp_path: Path, name: str) -> None:
    """Leaves what the lines print in transcript.txt, from which docs/first_day.txt is made."""
    checkout, far = beside(tmp_path, name)
    conf = {"SLURM_CONF": site.cluster.environment["SLURM_CONF"]}
    nodes = " ".join(NODES[:3])
    transcript = (tmp_path / "transcript.txt").open("w")

    def told(line: str, output: str) -> None:
        home = "/home/math-rl/warmstart"
        for place, shown in ((far, PLACES[1]), (checkout, home), (sys.prefix, f"{home}/.venv-gpu")):
            output = output.replace(str(place), shown)
        # What verl warns of in each process says nothing about the day.
        kept = [text for text in output.rstrip().splitlines() if not WARNING.search(text)]
        transcript.write("\n".join([f"$ {line}", *kept, "", ""]))

    def run(line: str) -> str:
        done = in_shell(checkout, line, **conf)
        told(line, done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for line in (LINES[1], LINES[5], f"{LINES[6]} {nodes}", f"{LINES[7]} {nodes}"):
        run(line)
    words = (*NODES, LINES[8].split()[1], *TINY[:1], "train.max_steps=2", "eval.limit=2")
    job = site.cluster.sbatch(*words, cwd=checkout)
    told(f"sbatch {' '.join(words)}", f"Submitted batch job {job}")
    ended = site.cluster.wait(job)
    log = (checkout / f"sft_4b-{job}.log").read_text()
    told(LINES[9], log)
    assert ended["JobState"] == "COMPLETED", log
    folder = far / "runs" / "tiny"
    submitted = (folder / "submissions.jsonl").read_text()
    evaluations = re.findall(r'"job": "(\d+)"', submitted)
    assert len(evaluations) == 2
    for number in evaluations:
        state = site.cluster.wait(number)["JobState"]
        log = (checkout / f"warmstart-eval-{number}.log").read_text()
        told(f"cat warmstart-eval-{number}.log", log)
        assert state == "COMPLETED", log
    assert (folder / "report.md").exists() and not (checkout / "runs").exists()
    assert all(str(folder) in run(f"warmstart {verb} sft_4b") for verb in ("status", "report"))
    transcript.close()
