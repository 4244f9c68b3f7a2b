"""The job scripts without a cluster: a dry run that says what would run at any size, and what they
submit.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.slurm.commands.conftest import DATA, SFT, call, dry_run, submitted
from trainer.process.network import PORTS
from trainer.recipe import load as configs
from trainer.run.folder import Run

OPTIONS = """
TRAIN_OPTIONS=(--exclude=n17 --nodes 8 --time=1:00:00)
EVAL_OPTIONS=(--nodes=2)
DATA_OPTIONS=(--partition=cpu -c 32)
SRUN_OPTIONS=(--mpi=none "--comment=two words")
"""
GPU_SITE = "export SBATCH_GRES=gpu:4 SBATCH_GPUS_PER_NODE=4 SBATCH_ACCOUNT=p42 SBATCH_PARTITION=g\n"


@pytest.mark.parametrize(
    ("nodes", "files"),
    # 48.27 GB are 179.8 files of 256 MiB, which each rank rounds up (45, 12, 3, 1), its generators,
    # and two more.
    [(1, 4 * 46 + 2), (4, 16 * 13 + 2), (16, 64 * 4 + 2), (128, 512 * 2 + 2)],
)
def test_a_dry_run_shows_what_would_run(checkout: Path, nodes: int, files: int) -> None:
    site = "export SBATCH_ACCOUNT=p200000\n"
    batch = f"train.batch_size={32 * nodes}"
    script = ("slurm/sft_4b.sh", "--dry-run", f"--nodes={nodes}", batch)
    (submit, preflight, *_, start), facts = dry_run(checkout, site, *script)
    assert shlex.split(submit) == [
        "SBATCH_ACCOUNT=p200000",
        "sbatch",
        f"--nodes={nodes}",
        "slurm/sft_4b.sh",
        batch,
    ]
    port = re.search(r"MASTER_PORT=(\d+)", start)
    assert port and int(port[1]) in PORTS
    srun = [
        "MASTER_ADDR=FIRST_NODE",
        f"MASTER_PORT={port[1]}",
        "srun",
        f"--nodes={nodes}",
        "--ntasks-per-node=4",
        "--cpus-per-task=8",
        "--export=ALL",
    ]
    python = f"{sys.prefix}/bin/python"
    assert shlex.split(preflight) == [
        *srun,
        "--wait=0",
        "--kill-on-bad-exit=0",
        python,
        "-m",
        "slurm.nodes.rank",
        "runs/sft_4b",
        "doctor",
        "sft_4b",
        batch,
    ]
    assert shlex.split(start) == [
        *srun,
        "--wait=60",
        "--kill-on-bad-exit=1",
        python,
        "-m",
        "slurm.nodes.rank",
        "runs/sft_4b",
        "train",
        "sft_4b",
        batch,
    ]
    for fact in (
        f"rank 0 of {4 * nodes} on the first node",
        "the others have 60 minutes",
        "then 10 without progress",
        "600 s before the time limit",
        f"checkpoint: {files:,} files",
        "48.3 GB",
        f"size {4 * nodes:,} ranks ({nodes} x 4)",
    ):
        assert fact in re.sub(" +", " ", facts)


def test_a_dry_run_shows_the_rehearsal_where_a_knob_is_on(checkout: Path) -> None:
    words = ("--nodes=2", "train.compile=true")
    (_, preflight, rehearsal, start), _ = dry_run(checkout, "", SFT, "--dry-run", *words)
    task = shlex.split(rehearsal)
    assert task[:7] == shlex.split(preflight)[:7] and "--kill-on-bad-exit=1" in task
    assert task[-4:] == ["runs/sft_4b", "rehearse", "sft_4b", "train.compile=true"]
    assert "rehearse" not in start
    off = ("train.compile=false", "train.liger=false", "train.fused_optimizer=false")
    lines, _ = dry_run(checkout, "", SFT, "--dry-run", *off, "train.prefetch=false")
    assert not any("rehearse" in line for line in lines)


def test_the_site_decides_container_and_overrides(checkout: Path) -> None:
    site = "CONTAINER=(apptainer exec --nv '/scratch/an image.sif')\n"
    site += "OVERRIDES=('run.root=/scratch/my runs')\n"
    (*_, start), _ = dry_run(
        checkout, site, "slurm/sft_8b.sh", "--dry-run", "recipe=sft_4b", "run.name=x"
    )
    words = shlex.split(start)
    (bound,) = [word for word in words if word.startswith("APPTAINER_BIND=")]
    folders = bound.partition("=")[2].split(",")
    assert "/scratch/my runs" in folders and any(map(checkout.is_relative_to, folders))
    assert not Path("/scratch/my runs").exists()
    assert words[words.index("apptainer") :] == [
        "apptainer",
        "exec",
        "--nv",
        "/scratch/an image.sif",
        "env",
        f"--chdir={checkout}",
        "python",
        "-m",
        "slurm.nodes.rank",
        "/scratch/my runs/x",
        "train",
        "sft_4b",
        "run.root=/scratch/my runs",
        "run.name=x",
    ]
    site += "EVAL_OPTIONS=(--nodes=2)\n"
    lines, _ = dry_run(
        checkout, site, "slurm/eval.sh", "--dry-run", "/scratch/my runs/x", "12", "eval.limit=3"
    )
    submit, export, nodes = map(shlex.split, lines)
    assert submit == [
        "sbatch",
        "--nodes=2",
        "slurm/eval.sh",
        "/scratch/my runs/x",
        "12",
        "eval.limit=3",
    ]
    assert export[-5:] == ["-m", "warmstart", "export", "/scratch/my runs/x", "12"]
    assert export[0].startswith("APPTAINER_BIND=") and export[2] == "apptainer"
    assert re.fullmatch(r"RAY_ADDRESS=FIRST_NODE:\d+", nodes[2])
    assert nodes[:2] == [
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/scratch/my runs/x/.ray-token-JOB",
    ]
    assert nodes[6:9] == ["srun", "--nodes=2", "--ntasks-per-node=1"]
    task = ["-m", "slurm.nodes.ray_node", "/scratch/my runs/x", "eval", "12", "eval.limit=3"]
    assert nodes[-6:] == task
    for word in ("rl-12", "avg-4-8"):
        lines, _ = dry_run(checkout, site, "slurm/eval.sh", "--dry-run", "/scratch/my runs/x", word)
        _, export, nodes = map(shlex.split, lines)
        assert export[-2:] == ["/scratch/my runs/x", word] and nodes[-2:] == ["eval", word]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("-N", "2", "--dry-run"), ["--nodes=2"]),
        (("train.lr=2e-5", "--dry-run", "--nodes", "2"), ["--nodes=2"]),
        (
            ("-t1:00:00", "train.lr=2e-5", "-A", "acct", "--dry-run"),
            ["--time=1:00:00", "--account=acct"],
        ),
    ],
)
def test_a_dry_run_takes_options_anywhere(
    checkout: Path, words: tuple[str, ...], options: list[str]
) -> None:
    (submit, preflight, *_), facts = dry_run(checkout, "", SFT, *words)
    own = [word for word in words if "=" in word and word[0] != "-"]
    assert shlex.split(submit) == ["sbatch", *options, SFT, *own]
    nodes = 2 if "--nodes=2" in options else 4
    assert f"--nodes={nodes}" in preflight and f"size  {4 * nodes} ranks" in facts
    assert shlex.split(preflight)[-len(own) - 1 :] == ["sft_4b", *own]


def test_a_dry_run_of_an_array_shows_its_first_job(checkout: Path) -> None:
    words = ("train.seed=%a", "run.name=s-%a", "--array=3-5", "--dry-run", "recipe=tiny")
    (submit, *_, start), facts = dry_run(checkout, "", SFT, *words)
    assert submit.endswith("--array=3-5 slurm/sft_4b.sh train.seed=%a run.name=s-%a recipe=tiny")
    assert start.endswith("slurm.nodes.rank runs/s-3 train tiny train.seed=3 run.name=s-3")
    assert "# array: index 3 is shown" in facts


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-N", "2", "train.lr=2e-5"), ["--nodes=2", SFT, "train.lr=2e-5"]),
        (
            ("train.lr=2e-5", "-N2", "-A", "acct"),
            ["--nodes=2", "--account=acct", SFT, "train.lr=2e-5"],
        ),
        (("--test-only", "-N64"), ["--test-only", "--nodes=64", SFT]),
        (("run.name=s-%a", "--array", "1-3"), ["--array=1-3", SFT, "run.name=s-%a"]),
    ],
)
def test_a_script_submits_itself(checkout: Path, words: tuple[str, ...], line: list[str]) -> None:
    done = call(checkout, "", SFT, *words)
    assert done.returncode == 0, done.stderr
    assert submitted(checkout) == line


def test_the_sites_options_count_where_the_command_line_has_none(checkout: Path) -> None:
    (submit, preflight, *_, start), facts = dry_run(checkout, OPTIONS, SFT, "--dry-run", "-t", "2")
    site = ["--exclude=n17", "--nodes=8", "--time=1:00:00"]
    assert shlex.split(submit) == ["sbatch", *site, "--time=2", SFT]
    assert "size  32 ranks (8 x 4)" in facts
    for line in (preflight, start):
        words = shlex.split(line)
        waits = next(word for word in words if word.startswith("--wait="))
        places = (waits, "--mpi=none", "--comment=two words", f"{sys.prefix}/bin/python")
        own = [words.index(x) for x in places]
        assert own == sorted(own)
    (submit, *_), _ = dry_run(checkout, OPTIONS, SFT, "--dry-run", "-N2")
    assert shlex.split(submit) == ["sbatch", *site, "--nodes=2", SFT]
    done = call(checkout, OPTIONS, SFT, "--nodes=2")
    assert (done.returncode, submitted(checkout)) == (0, [*site, "--nodes=2", SFT])
    lines, _ = dry_run(checkout, OPTIONS, "slurm/eval.sh", "--dry-run", "/x", "base")
    assert lines[0] == "sbatch --nodes=2 slurm/eval.sh /x base" and " --mpi=none " in lines[1]


def test_a_dataset_is_built_by_a_job_without_gpus(checkout: Path) -> None:
    words = (DATA, "tiny", "data.test_rows=9", "--dry-run")
    (submit, build), _ = dry_run(checkout, GPU_SITE + OPTIONS, *words)
    assert shlex.split(submit) == [
        "SBATCH_ACCOUNT=p42",
        "SBATCH_PARTITION=g",
        "sbatch",
        "--partition=cpu",
        "--cpus-per-task=32",
        DATA,
        "tiny",
        "data.test_rows=9",
    ]
    assert shlex.split(build) == [
        f"{sys.prefix}/bin/python",
        "-m",
        "warmstart",
        "data",
        "tiny",
        "data.test_rows=9",
        "data.processes=32",
    ]
    (_, build), _ = dry_run(checkout, "", DATA, "tiny", "data.processes=3", "--dry-run")
    assert build.endswith("data tiny data.processes=3")
    (_, build), _ = dry_run(checkout, "OVERRIDES=(data.processes=5)", DATA, "tiny", "--dry-run")
    assert build.endswith("data tiny")
    done = call(checkout, GPU_SITE + OPTIONS, DATA, "tiny", "-c", "4")
    line = ["--partition=cpu", "--cpus-per-task=32", "--cpus-per-task=4", DATA, "tiny"]
    assert (done.returncode, submitted(checkout)) == (0, line), done.stderr


def test_a_recipe_may_be_a_file_of_ones_own(checkout: Path) -> None:
    (checkout / "my").mkdir(exist_ok=True)
    (checkout / "my" / "own.yaml").write_text("defaults: [sft_4b, _self_]\ntrain: {seed: 3}\n")
    words = ("recipe=my/own.yaml", "train.lr=1e-5", "--dry-run")
    (submit, preflight, *_, start), _ = dry_run(checkout, "", SFT, *words)
    assert submit.endswith("slurm/sft_4b.sh recipe=my/own.yaml train.lr=1e-5")
    assert preflight.endswith("runs/own doctor my/own.yaml train.lr=1e-5")
    assert start.endswith("runs/own train my/own.yaml train.lr=1e-5")
    (checkout / "tmp").mkdir(exist_ok=True)
    # The temporary folder is shown too, and with it what lies in it.
    site = f"export TMPDIR='{checkout}/tmp'\nCONTAINER=(enter --bind={{folder}} image)\n"
    (checkout.parent / "beside").mkdir(exist_ok=True)
    shutil.copy(checkout / "my" / "own.yaml", checkout.parent / "beside" / "own.yaml")
    (*_, start), _ = dry_run(checkout, site, SFT, "recipe=../beside/own.yaml", "--dry-run")
    assert f"--bind={checkout.parent / 'beside'}" in shlex.split(start)
    done = call(checkout, "", SFT, "recipe=my/owm.yaml")
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "my/owm.yaml does not exist: give the path of a recipe's file" in done.stderr


def test_help_and_evaluations(checkout: Path) -> None:
    done = call(checkout, "", SFT, "x=1", "--help")
    assert (done.returncode, submitted(checkout)) == (0, None)
    assert done.stdout.startswith("usage: slurm/sft_4b.sh [--dry-run]")
    done = call(checkout, "", "slurm/eval.sh", "nowhere", "base", "-N2")
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "no run at nowhere or runs/nowhere" in done.stderr
    run = Run(checkout / "runs" / "bare")
    configs.write(configs.load("tiny", ["run.name=bare"]), run.config)
    done = call(checkout, "", "slurm/eval.sh", "bare", "avg-4-8")
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert (
        "no average avg-4-8 (available: none): warmstart export runs/bare --average" in done.stderr
    )
