"""`make setup-gpu`: what it checks before it installs anything, and how it builds flash-attn.

A machine is a folder of stub commands, which comes first on PATH.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

COPIED = ("setup.py", "pyproject.toml", *(p.name for p in ROOT.glob("requirements-*.txt")))

MACHINE = {
    "uname": 'case $1 in -m) echo "${MACHINE:-x86_64}" ;; -n) echo n1 ;; esac',
    "getconf": 'echo "glibc ${GLIBC:-2.28}"',
    # Two GPUs of compute capability 8.0.
    "nvidia-smi": """
case $1 in
    *driver_version) printf '%s\\n%s\\n' "${DRIVER:-580.65.06}" "${DRIVER:-580.65.06}" ;;
    *compute_cap) printf '%s\\n' ${CAPABILITIES:-8.0 8.0} ;;
    *) echo "| NVIDIA-SMI 580   Driver Version: 580   CUDA Version: ${CUDA_DRIVER:-12.6}  |" ;;
esac""",
    "nvcc": 'echo "Cuda compilation tools, release ${NVCC:-13.0}, V${NVCC:-13.0}.88"',
    # The checkout's file system is /scratch, HOME's is the same or /home.
    "df": """
mount=/scratch room=${FREE_GB:-500}
case $2 in */home*) mount=${HOME_MOUNT:-/scratch} room=${HOME_GB:-$room} ;; esac
echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'
case $1 in
    -Pi) echo "/dev/x ${INODES_ALL:-9000000} 1 ${INODES:-8000000} 1% $mount" ;;
    *) echo "/dev/x 900000000 1 ${room}000000 1% $mount" ;;
esac""",
    "free": "echo 'total used free'; echo \"Mem: 9 9 9 9 9 ${FREE_MB:-500000}\"",
    "nproc": 'echo "${CORES:-64}"',
    # Makes environments whose Python is this one; writes down how packages are installed.
    "uv": f"""
case $1 in
    --version) echo 'uv 99.0.0' ;;
    venv) mkdir -p .venv-gpu/bin && ln -sf {sys.executable} .venv-gpu/bin/python ;;
    *)
        echo "$* FORCE=$FLASH_ATTENTION_FORCE_BUILD ARCHS=$FLASH_ATTN_CUDA_ARCHS JOBS=$MAX_JOBS" \\
            >>"$LOG"
        exit "${{UV_FAILS:-0}}"
        ;;
esac""",
}
OLD = {"GLIBC": "2.17", "DRIVER": "560.35.03", "FREE_GB": "3", "INODES": "1000", "NVCC": "12.6"}
WITH_FLASH = {"FLASH_ATTN": "1"}


@dataclass(frozen=True)
class Host:
    """A checkout on a machine of stub commands."""

    folder: Path

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def stub(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def remove(self, name: str) -> None:
        (self.folder / "bin" / name).unlink()

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs `tools/setup.sh gpu` with the variables, of which the stubs read some."""
        return subprocess.run(
            ["bash", "tools/setup.sh", "gpu"],
            cwd=self.checkout,
            env={
                "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
                "HOME": str(self.folder / "home"),
                "LOG": str(self.folder / "log"),
                **variables,
            },
            capture_output=True,
            text=True,
        )

    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*")}

    def installed(self) -> list[str]:
        """What uv was told to install, a line each; forgets it."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine that has all that is needed, RHEL 8 with A100s."""
    host = Host(tmp_path)
    for folder in ("bin", "checkout", "home"):
        (tmp_path / folder).mkdir()
    for name in COPIED:
        shutil.copy(ROOT / name, host.checkout)
    shutil.copytree(ROOT / "tools", host.checkout / "tools")
    for name, body in MACHINE.items():
        host.stub(name, body)
    (tmp_path / "bin" / "python3.11").symlink_to(sys.executable)
    return host


def refusal(host: Host, **variables: str) -> list[str]:
    """The lines of a set-up that is refused, which has created nothing."""
    before = host.files()
    done = host.setup(**variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert host.files() == before
    return done.stderr.splitlines()


def test_a_machine_that_has_all_gets_the_stack(host: Host) -> None:
    done = host.setup()
    assert done.returncode == 0, done.stderr
    sync, package = host.installed()
    assert sync.startswith("pip sync") and " requirements-gpu.txt " in sync
    assert "flash-attn" not in sync and " -e . " in package
    assert (host.checkout / ".venv-gpu" / ".ready").exists()
    assert "FLASH_ATTN=1 builds flash-attn" in done.stdout
    # The next call finds it ready, on whatever machine.
    assert host.setup(**OLD).returncode == 0
    assert host.installed() == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"MACHINE": "ppc64le"}, "ppc64le: the pinned wheels are for x86_64 and aarch64 only"),
        ({"GLIBC": "2.17"}, "glibc 2.17 on n1: the pinned wheels need 2.28 or newer: "),
        (
            {"MACHINE": "aarch64", "GLIBC": "2.28"},
            "glibc 2.28 on n1: the pinned wheels need 2.34 or newer: ",
        ),
        ({"DRIVER": "560.35.03"}, "NVIDIA driver 560.35.03 on n1: torch 2.11 is built for CUDA 13"),
        ({"FREE_GB": "3"}, "3 GB free in {checkout}: the environment needs "),
        ({"INODES": "1000"}, "1000 inodes free in {checkout}: the environment needs "),
        (
            {"HOME_MOUNT": "/home", "HOME_GB": "5"},
            "5 GB free in {home}: the environment needs ",
        ),
        ({"NVCC": "12.6", **WITH_FLASH}, "nvcc 12.6 ({bin}/nvcc): FLASH_ATTN=1 needs nvcc of CUDA"),
        (
            {"CUDA_HOME": "/no/cuda", **WITH_FLASH},
            "nvcc not found (/no/cuda/bin/nvcc): FLASH_ATTN=1 needs nvcc of CUDA 13",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_each_fault_is_one_line(host: Host, variables: dict[str, str], line: str) -> None:
    names = {name: host.folder / name for name in ("checkout", "home", "bin")}
    (said,) = refusal(host, **variables)
    assert said.startswith(f"setup: {line.format(**names)}")


def test_all_faults_are_told_at_once(host: Host) -> None:
    lines = refusal(host, **OLD, **WITH_FLASH)
    starts = ["glibc 2.17", "NVIDIA driver", "nvcc 12.6", "3 GB free", "1000 inodes"]
    assert len(lines) == len(starts)
    assert all(x.startswith(f"setup: {start}") for x, start in zip(lines, starts, strict=True))


def test_each_fault_says_what_to_do(host: Host) -> None:
    glibc, driver, nvcc, room, inodes = refusal(host, **OLD, **WITH_FLASH)
    assert "newer system" in glibc and "container" not in glibc
    (aarch64,) = refusal(host, MACHINE="aarch64", GLIBC="2.28")
    assert "newer system" in aarch64 and "container (from glibc 2.28 on)" in aarch64
    assert "newer driver" in driver and "cuda-compat 13" in driver and "container" in driver
    assert "module load CUDA/13" in nvcc and "leave FLASH_ATTN out" in nvcc
    assert "another file system" in room and "another file system" in inodes
    (cache,) = refusal(host, HOME_MOUNT="/home", HOME_GB="5")
    assert "export UV_CACHE_DIR=FOLDER" in cache


def test_amd_is_named(host: Host) -> None:
    host.remove("nvidia-smi")
    host.stub("rocm-smi", "echo GPU[0]")
    (line,) = refusal(host)
    assert line == "setup: AMD GPUs are not supported: the pinned stack is for NVIDIA's CUDA"


def test_a_node_with_both_tools_counts_as_nvidias(host: Host) -> None:
    host.stub("rocm-smi", "exit 1")
    assert host.setup().returncode == 0


@pytest.mark.parametrize("missing", [True, False], ids=["no nvidia-smi", "no driver"])
def test_a_login_node_leaves_the_driver_to_the_job(host: Host, missing: bool) -> None:
    if missing:
        host.remove("nvidia-smi")
    else:
        host.stub("nvidia-smi", "echo 'NVIDIA-SMI has failed because it has no driver'; exit 9")
    done = host.setup()
    assert done.returncode == 0, done.stderr
    assert "no NVIDIA GPU here: warmstart doctor checks the driver in the job" in done.stdout


def test_cuda_compat_makes_an_older_driver_do(host: Host) -> None:
    assert host.setup(DRIVER="560.35.03", CUDA_DRIVER="13.0").returncode == 0


def test_nvcc_does_not_matter_without_flash_attn(host: Host) -> None:
    host.remove("nvcc")
    assert host.setup(CUDA_HOME="/no/cuda").returncode == 0


def test_a_file_system_without_a_count_of_inodes_is_taken(host: Host) -> None:
    assert host.setup(INODES_ALL="0", INODES="0").returncode == 0


def test_an_environment_that_is_older_than_the_pins_needs_no_room(host: Host) -> None:
    host.setup()
    host.installed()
    with (host.checkout / "requirements-gpu.txt").open("a") as file:
        file.write("# newer\n")
    assert host.setup(FREE_GB="3", INODES="10").returncode == 0
    assert host.installed()


def test_aarch64_has_pins_of_its_own(host: Host) -> None:
    assert host.setup(MACHINE="aarch64", GLIBC="2.34").returncode == 0
    assert " requirements-gpu-aarch64.txt " in host.installed()[0]


@pytest.mark.parametrize("value", ["yes", "true", "2"])
def test_flash_attn_is_one_or_zero(host: Host, value: str) -> None:
    (line,) = refusal(host, FLASH_ATTN=value)
    assert line == f"setup: FLASH_ATTN={value} is neither 0 nor 1: 1 builds flash-attn"


def test_flash_attn_is_built_after_the_rest_for_the_gpus_here(host: Host) -> None:
    done = host.setup(**WITH_FLASH, CAPABILITIES="8.6 9.0 8.0")
    assert done.returncode == 0, done.stderr
    *_, build = host.installed()
    assert build.endswith(" FORCE=TRUE ARCHS=80;90 JOBS=32")
    for words in ("--no-deps", "--no-build-isolation", "--no-cache", "--require-hashes"):
        assert f" {words} " in build
    assert " -r requirements-flash-attn.txt " in build


def test_flash_attn_is_built_once(host: Host) -> None:
    host.setup()
    assert len(host.installed()) == 2
    assert host.setup(**WITH_FLASH).returncode == 0
    assert len(host.installed()) == 1
    for variables in (WITH_FLASH, {}):
        assert host.setup(**variables).returncode == 0
        assert host.installed() == []
    with (host.checkout / "requirements-flash-attn.txt").open("a") as file:
        file.write("# newer\n")
    host.setup(**WITH_FLASH)
    assert len(host.installed()) == 1


def test_a_build_that_fails_is_tried_again(host: Host) -> None:
    host.setup()
    host.installed()
    assert host.setup(**WITH_FLASH, UV_FAILS="1").returncode == 1
    assert len(host.installed()) == 1
    assert host.setup(**WITH_FLASH).returncode == 0
    assert len(host.installed()) == 1


def test_without_a_gpu_its_kind_is_asked_for(host: Host) -> None:
    host.remove("nvidia-smi")
    (line,) = refusal(host, **WITH_FLASH)
    assert line.startswith("setup: FLASH_ATTN=1, and no GPU here to build it for: ")
    assert host.setup(**WITH_FLASH, FLASH_ATTN_CUDA_ARCHS="80;90").returncode == 0
    assert " ARCHS=80;90 " in host.installed()[-1]


@pytest.mark.parametrize(
    ("variables", "jobs"),
    [
        ({"CORES": "8"}, 4),
        ({"FREE_MB": "40000"}, 4),
        ({"SLURM_MEM_PER_NODE": "20000"}, 2),
        ({"FREE_MB": "2000"}, 1),
        ({"MAX_JOBS": "7"}, 7),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_jobs_are_bounded_by_cores_and_memory(
    host: Host, variables: dict[str, str], jobs: int
) -> None:
    assert host.setup(**WITH_FLASH, **variables).returncode == 0
    assert host.installed()[-1].endswith(f" JOBS={jobs}")
