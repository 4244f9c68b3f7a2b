"""Ranks and engines in a container of any runtime; stand-ins take the runtimes' place."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.errors import UserError
from slurm.commands.command_lines import Job
from slurm.commands.stack import Stack
from tests.slurm.commands.conftest import HERE, choose
from tests.slurm.conftest import Site
from trainer.recipe import load as configs

LOGIN = Job(HERE, submission=("sbatch",))


def recipe(folder: Path) -> DictConfig:
    """One whose model, runs and data are elsewhere; the runs are behind a link."""
    (folder / "model").mkdir()
    (folder / "far").mkdir()
    (folder / "link").symlink_to(folder / "far")
    places = {"run.root": "link/runs", "data.dir": "data", "model.path": "model"}
    return configs.load("tiny", [f"{key}='{folder}/{place}'" for key, place in places.items()])


def shown(folder: Path) -> list[str]:
    """The folders that its container shows."""
    names = ("a checkout", "data", "far/runs", "home", "link/runs", "model", "temp", "triton")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize("command", ["apptainer", "/opt/bin/singularity"])
def test_apptainer_binds_by_a_variable_after_ones_own(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINGULARITY_BIND", "/own:/there,/p")
    choose(f"CONTAINER=({command} exec --nv 'an image.sif')")
    stack = Stack.of(Job(HERE), recipe(folder))
    value = ",".join(["/own:/there", "/p", *shown(folder)])
    assert stack.variables == {"APPTAINER_BIND": value, "SINGULARITY_BIND": value}
    python = [command, "exec", "--nv", "an image.sif", "env", f"--chdir={Path.cwd()}", "python"]
    assert list(stack.python) == python
    assert stack.alone("-m", "x") == [*python, "-m", "x"]
    assert all(Path(path).is_dir() for path in shown(folder))
    # An own variable of Apptainer's is not hidden by ours either.
    monkeypatch.setenv("APPTAINER_BIND", "/first")
    assert Stack.of(Job(HERE), None).variables["APPTAINER_BIND"].startswith("/first,/own:/there,")


def test_on_the_login_node_no_folder_is_created(folder: Path) -> None:
    choose("CONTAINER=(apptainer exec x.sif)")
    config = recipe(folder)
    assert Stack.of(LOGIN, config) == Stack.of(LOGIN, config)
    assert not (folder / "data").exists() and not (folder / "far" / "runs").exists()


def test_another_runtime_has_a_word_per_folder(folder: Path) -> None:
    choose('CONTAINER=(podman-hpc run --env-host "--volume={folder}:{folder}" warm:1)')
    stack = Stack.of(Job(HERE), recipe(folder))
    volumes = [f"--volume={path}:{path}" for path in shown(folder)]
    end = ["warm:1", "env", f"--chdir={Path.cwd()}", "python"]
    assert list(stack.python) == ["podman-hpc", "run", "--env-host", *volumes, *end]
    assert stack.variables == {}


def test_a_container_of_srun_holds_what_runs_outside_the_ranks_too(folder: Path) -> None:
    choose(
        "SRUN_OPTIONS=(--mpi=none)\n"
        'CONTAINER=(--container-image=w.sqsh "--container-mounts={folder}:{folder}")'
    )
    stack = Stack.of(Job(HERE), recipe(folder))
    mounts = ["--container-mounts=" + ",".join(f"{path}:{path}" for path in shown(folder))]
    options = ["--mpi=none", "--container-image=w.sqsh", *mounts]
    python = ["env", f"--chdir={Path.cwd()}", "python"]
    assert list(stack.python) == python
    assert stack.srun("--x", *stack.python) == HERE.srun(*options, "--x", *python)
    one = replace(HERE, nodes=1, tasks=1)
    assert stack.alone("-m", "x") == one.srun(*options, "--ntasks=1", *python, "-m", "x")


def test_a_folder_that_cannot_be_bound_is_named(folder: Path) -> None:
    choose("CONTAINER=(apptainer exec x.sif)")
    with pytest.raises(UserError, match="a:b: a container cannot mount a folder with : or ,"):
        Stack.of(LOGIN, None, folder / "a:b")


APPTAINER = """#!/bin/sh
# Shows what is bound, then runs the words behind the image where a container would start.
echo "bound $APPTAINER_BIND" >>"$LOG"
while [ "$1" != image.sif ]; do shift; done
shift
cd / && exec "$@"
"""


def test_a_command_in_a_container_runs_in_the_checkout(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER)
    program.chmod(0o755)
    (folder / "bin" / "python").symlink_to(sys.executable)
    choose("CONTAINER=(apptainer exec --nv image.sif)")
    stack = Stack.of(Job(HERE), None)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        stack.alone("-c", "import os; print(os.getcwd())"),
        env=os.environ | stack.variables | {"PATH": path, "LOG": str(folder / "log")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{Path.cwd()}\n", done.stderr
    assert (folder / "log").read_text().startswith(f"bound {Path.cwd()},")


ALONE = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=2 --cpus-per-task=1 --time=5 --partition=gpu --output=alone.log
{python} - <<'END'
import subprocess
from slurm.commands.command_lines import Job
from slurm.commands.environment import CACHES
from slurm.commands.stack import Stack
stack = Stack.of(Job.here(), None)
subprocess.run(stack.alone("-c", "import os; print('one', os.getcwd(), flush=True)"), check=True)
subprocess.run(stack.srun("--label", *stack.python, "-c", "print('each', flush=True)"), check=True)
END
"""


def test_srun_starts_one_process_or_all_in_a_container(site: Site, folder: Path) -> None:
    """An option without effect takes the place of pyxis's."""
    checkout = folder / "boxed"
    shutil.copytree(site.folder, checkout, ignore=shutil.ignore_patterns("runs", "data"))
    with (checkout / "slurm" / "site.env").open("a") as f:
        f.write(f'PATH={shlex.quote(sys.prefix)}/bin:$PATH\nCONTAINER=("--comment={{folder}}")\n')
    (checkout / "alone.sh").write_text(ALONE.format(python=shlex.quote(sys.executable)))
    job = site.cluster.sbatch("--export=ALL", "alone.sh", cwd=checkout)
    ended = site.cluster.wait(job)
    log = (checkout / "alone.log").read_text()
    assert ended["JobState"] == "COMPLETED", log
    lines = sorted(line for line in log.splitlines() if "one" in line or "each" in line)
    assert lines == [*(f"{rank}: each" for rank in range(4)), f"one {checkout}"]
