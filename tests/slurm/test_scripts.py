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

from common.errors import UserError
from slurm.network import PORTS, addresses, free_port
from tests.conftest import ROOT


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


def dry_run(checkout: Path, site: str, *words: str) -> tuple[list[str], str]:
    """The command lines and the facts that a script's dry run prints."""
    (checkout / "slurm" / "site.env").write_text(f"VENV={sys.prefix}\n{site}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
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
    script = ("slurm/sft_4b.sh", "--dry-run", f"--nodes={nodes}", "train.lr=2e-5")
    (submit, preflight, start), facts = dry_run(checkout, site, *script)
    assert shlex.split(submit) == [
        "SBATCH_ACCOUNT=p200000",
        "sbatch",
        f"--nodes={nodes}",
        "slurm/sft_4b.sh",
        "train.lr=2e-5",
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
        "--wait=60",
    ]
    python = f"{sys.prefix}/bin/python"
    assert shlex.split(preflight) == [
        *srun,
        "--kill-on-bad-exit=0",
        python,
        "-m",
        "warmstart",
        "doctor",
        "sft_4b",
        "train.lr=2e-5",
    ]
    assert shlex.split(start) == [
        *srun,
        "--kill-on-bad-exit=1",
        python,
        "-m",
        "slurm.rank",
        "runs/sft_4b",
        "sft_4b",
        "train.lr=2e-5",
    ]
    for fact in (
        f"rank 0 of {4 * nodes} on the first node",
        "the others have 60 minutes",
        "then 10 without progress",
        "600 s before the time limit",
        f"checkpoint: {files:,} files",
        "48.3 GB",
    ):
        assert fact in facts


def test_the_site_decides_image_and_overrides(checkout: Path) -> None:
    site = "IMAGE='/scratch/an image.sif' OVERRIDES=('run.root=/scratch/my runs')\n"
    (_, _, start), _ = dry_run(
        checkout, site, "slurm/sft_8b.sh", "--dry-run", "recipe=sft_4b", "run.name=x"
    )
    words = shlex.split(start)
    assert words[words.index("apptainer") :] == [
        "apptainer",
        "exec",
        "--nv",
        "--bind",
        str(checkout),
        "--pwd",
        str(checkout),
        "/scratch/an image.sif",
        "python",
        "-m",
        "slurm.rank",
        "/scratch/my runs/x",
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
    assert re.fullmatch(r"RAY_ADDRESS=FIRST_NODE:\d+", nodes[2])
    assert nodes[:2] == [
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/scratch/my runs/x/.ray-token-JOB",
    ]
    assert nodes[3:6] == ["srun", "--nodes=2", "--ntasks-per-node=1"]
    assert nodes[-5:] == ["-m", "slurm.ray_node", "/scratch/my runs/x", "12", "eval.limit=3"]


def test_the_port_is_one_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("", port))
        taken.listen()
        monkeypatch.setattr("random.sample", lambda *_: [port, port + 1])
        assert free_port() == port + 1


def test_a_nodes_address_is_one_that_the_others_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def shown(*nodes: str) -> dict[str, str]:
        lines = "\n".join(
            f"NodeName={n} Arch=x86_64 NodeAddr={a} NodeHostName={n}"
            for n, a in (n.split() for n in nodes)
        )
        scontrol.write_text(
            f"#!/bin/sh\n[ $2 = node ] || exec printf 'n1\\nn2\\n'\ncat <<'.'\n{lines}\n.\n"
        )
        scontrol.chmod(0o755)
        return addresses("n[1-2]", "n1")

    assert shown("n2 127.0.0.12", "n1 127.0.0.11") == {"n1": "127.0.0.11", "n2": "127.0.0.12"}
    own = shown("n1 127.0.1.1", "n2 192.0.2.1")["n1"]
    assert own != "127.0.1.1" and free_port_on(own)
    with pytest.raises(UserError, match=r"no-such-host.invalid of node n2 does not resolve on n1"):
        shown("n1 127.0.0.1", "n2 no-such-host.invalid")
    # A node that the controller does not show is found by its name.
    monkeypatch.setattr("socket.gethostbyname", {"n2": "127.0.0.2", "127.0.0.11": "127.0.0.11"}.get)
    assert shown("n1 127.0.0.11") == {"n1": "127.0.0.11", "n2": "127.0.0.2"}


def free_port_on(address: str) -> bool:
    """Whether this host has the address."""
    with socket.socket() as s:
        s.bind((address, 0))
    return True


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
        "flash-attn is built with the CUDA that torch is built with"
    )
