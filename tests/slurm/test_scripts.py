"""The job scripts without a cluster: clean shell, and a dry run that says what would run at any
size.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainer.process.network import PORTS, free_port


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.prefix) / "bin" / "shellcheck"
    files = [
        str(p.relative_to(ROOT))
        for pattern in ("*.sh", "*.env")
        for p in (ROOT / "slurm").glob(pattern)
    ]
    done = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts in a folder with a space, beside this checkout's packages."""
    folder = tmp_path_factory.mktemp("scripts") / "a checkout"
    shutil.copytree(
        ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env", "__pycache__")
    )
    for name in ("common", "data_prep", "trainer", "eval", "recipes", "warmstart"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def call(checkout: Path, site: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a script outside any job, beside an sbatch that only notes in ``calls`` that it ran."""
    (checkout / "slurm" / "site.env").write_text(f"VENV={sys.prefix}\n{site}")
    (checkout / "calls").unlink(missing_ok=True)
    fake = checkout / "bin" / "sbatch"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >'{checkout}/calls'\nenv >'{checkout}/variables'"
    )
    fake.chmod(0o755)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    variables["PATH"] = f"{fake.parent}:{variables['PATH']}"
    return subprocess.run(words, cwd=checkout, env=variables, capture_output=True, text=True)


def submitted(checkout: Path) -> list[str] | None:
    """What sbatch was called with; None if it was not."""
    path = checkout / "calls"
    return path.read_text().splitlines() if path.exists() else None


def dry_run(checkout: Path, site: str, *words: str) -> tuple[list[str], str]:
    """The command lines and the facts that a script's dry run prints."""
    done = call(checkout, site, *words)
    assert done.returncode == 0, done.stderr
    assert submitted(checkout) is None
    lines = done.stdout.splitlines()
    return [x for x in lines if not x.startswith("#")], "\n".join(
        x for x in lines if x.startswith("#")
    )


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
    (submit, preflight, start), facts = dry_run(checkout, site, *script)
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


def test_the_site_decides_container_and_overrides(checkout: Path) -> None:
    site = "CONTAINER=(apptainer exec --nv '/scratch/an image.sif')\n"
    site += "OVERRIDES=('run.root=/scratch/my runs')\n"
    (_, _, start), _ = dry_run(
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


SFT = "slurm/sft_4b.sh"


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
    (submit, preflight, _), facts = dry_run(checkout, "", SFT, *words)
    own = [word for word in words if "=" in word and word[0] != "-"]
    assert shlex.split(submit) == ["sbatch", *options, SFT, *own]
    nodes = 2 if "--nodes=2" in options else 4
    assert f"--nodes={nodes}" in preflight and f"size  {4 * nodes} ranks" in facts
    assert shlex.split(preflight)[-len(own) - 1 :] == ["sft_4b", *own]


def test_a_dry_run_of_an_array_shows_its_first_job(checkout: Path) -> None:
    words = ("train.seed=%a", "run.name=s-%a", "--array=3-5", "--dry-run", "recipe=tiny")
    (submit, _, start), facts = dry_run(checkout, "", SFT, *words)
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


@pytest.mark.parametrize(
    ("site", "words", "code", "message"),
    [
        ("", ("train.lr=1", "--node=2"), 2, "did you mean --nodes?"),
        ("", ("train.lrr=1",), 2, "did you mean train.lr?"),
        ("", ("tain.lr",), 2, "'tain.lr' is not an override"),
        ("", ("run.name=s-%a",), 2, "add --array=1-3"),
        ("", ("-N", "2-4"), 2, "--nodes=2-4: give one number"),
        ("", ("-A", "your-account"), 2, "in place of your-account"),
        ("export SBATCH_ACCOUNT=your-account", (), 2, "slurm/site.env, line 2: put your own"),
        ("OVERRIDES=(train.lrr=1)", (), 2, "(slurm/site.env has train.lrr=1)"),
        ("", ("-N64",), 3, "leaves 64 of 128 data-parallel groups without rows"),
        ("", ("recipe=qlora_gsm8k_8b",), 3, "a QLoRA trains on one GPU, not on 16 ranks"),
        ("", ("-N1", "train.max_tokens_per_gpu=99000"), 3, "does not fit"),
    ],
)
def test_what_would_fail_does_not_reach_the_queue(
    checkout: Path, site: str, words: tuple[str, ...], code: int, message: str
) -> None:
    done = call(checkout, site, SFT, *words)
    assert (done.returncode, submitted(checkout)) == (code, None), done.stderr
    assert message in done.stderr and (code == 3 or len(done.stderr.splitlines()) == 1)
    if code == 3:
        done = call(checkout, site, SFT, *words, "--dry-run")
        assert (done.returncode, submitted(checkout)) == (3, None)
        assert message in done.stdout


OPTIONS = """
TRAIN_OPTIONS=(--exclude=n17 --nodes 8 --time=1:00:00)
EVAL_OPTIONS=(--nodes=2)
DATA_OPTIONS=(--partition=cpu -c 32)
SRUN_OPTIONS=(--mpi=none "--comment=two words")
"""


def test_the_sites_options_count_where_the_command_line_has_none(checkout: Path) -> None:
    (submit, preflight, start), facts = dry_run(checkout, OPTIONS, SFT, "--dry-run", "-t", "2")
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


def test_a_list_of_the_site_that_is_a_text_is_refused(checkout: Path) -> None:
    done = call(checkout, "TRAIN_OPTIONS='--nodes=2 --time=1'", SFT)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "TRAIN_OPTIONS must be a list of OPTION: write TRAIN_OPTIONS=(" in done.stderr
    done = call(checkout, "IMAGE=/scratch/w.sif", SFT)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "CONTAINER=(apptainer exec --nv /scratch/w.sif)" in done.stderr


DATA = "slurm/data.sh"
GPU_SITE = "export SBATCH_GRES=gpu:4 SBATCH_GPUS_PER_NODE=4 SBATCH_ACCOUNT=p42 SBATCH_PARTITION=g\n"


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "usage: slurm/data.sh [OPTION ...] RECIPE"),
        (("tiny", "data.rowss=1"), "did you mean"),
        (("nowhere",), "nowhere"),
    ],
)
def test_a_wrong_dataset_does_not_reach_the_queue(
    checkout: Path, words: tuple[str, ...], message: str
) -> None:
    done = call(checkout, "", DATA, *words)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_and_evaluations(checkout: Path) -> None:
    done = call(checkout, "", SFT, "x=1", "--help")
    assert (done.returncode, submitted(checkout)) == (0, None)
    assert done.stdout.startswith("usage: slurm/sft_4b.sh [--dry-run]")
    done = call(checkout, "", "slurm/eval.sh", "nowhere", "base", "-N2")
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "no run at nowhere or runs/nowhere" in done.stderr


def test_in_a_job_options_come_too_late(checkout: Path, tmp_path: Path) -> None:
    spooled = tmp_path / "job00007" / "slurm_script"
    spooled.parent.mkdir()
    shutil.copy(checkout / SFT, spooled)

    def in_job(*words: str) -> subprocess.CompletedProcess[str]:
        (checkout / "slurm" / "site.env").write_text(f"VENV={sys.prefix}\n")
        variables = os.environ | {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(checkout)}
        return subprocess.run(
            [spooled, *words], cwd=checkout, env=variables, capture_output=True, text=True
        )

    done = in_job("--nodes=2", "train.lr=1")
    assert done.returncode == 2 and "sbatch --nodes=2 SCRIPT" in done.stderr
    done = in_job("train.lr=1e-5", "--dry-run")
    assert (
        done.returncode == 0
        and "slurm.nodes.rank runs/sft_4b train sft_4b train.lr=1e-5" in done.stdout
    )


def test_in_an_allocation_the_script_submits(checkout: Path) -> None:
    """In a shell by salloc or srun --pty, in a notebook; from another folder, through a link."""
    words = ("env", "SLURM_JOB_ID=7", "SLURM_SUBMIT_DIR=/", "SLURM_CPU_BIND=mask_cpu:0x1")
    link = checkout / "train"
    link.symlink_to(checkout / SFT)
    for script in (SFT, str(link), str(checkout / SFT)):
        done = call(checkout, "", *words, script, "train.lr=1e-5")
        assert done.returncode == 0, done.stderr
        assert submitted(checkout) == ["slurm/sft_4b.sh", "train.lr=1e-5"]
        # sbatch sees what it would see outside: it would pass the binding on to the job's steps.
        assert "SLURM_" not in (checkout / "variables").read_text()


def test_the_port_is_one_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("", port))
        taken.listen()
        monkeypatch.setattr("random.sample", lambda *_: [port, port + 1])
        assert free_port() == port + 1


def test_the_images_build_script_is_clean(tmp_path: Path) -> None:
    text = (ROOT / "slurm" / "warmstart.def").read_text()
    header, *sections = re.split(r"^%(\w+).*\n", text, flags=re.MULTILINE)
    assert re.fullmatch(r"Bootstrap: docker\nFrom: nvidia/cuda:\S+-devel-\S+\n+", header)
    bodies = dict(zip(sections[::2], sections[1::2], strict=True))
    assert set(bodies) == {"help", "files", "post", "environment", "test"}
    copied = [line.split() for line in bodies["files"].splitlines() if line.strip()]
    assert all((ROOT / source).exists() and Path(target).is_absolute() for source, target in copied)
    for name in ("post", "environment", "test"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{bodies[name]}")
    shellcheck = [
        Path(sys.prefix) / "bin" / "shellcheck",
        *(tmp_path / name for name in ("post", "environment", "test")),
    ]
    done = subprocess.run(shellcheck, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    toolkit = re.search(
        r"^cuda-toolkit==(\S+)", (ROOT / "requirements-gpu.txt").read_text(), re.MULTILINE
    )
    assert toolkit and f"cuda:{toolkit[1]}-devel" in header, (
        "the image has the CUDA that torch is built with"
    )
