"""The Python environment of ranks and engines: that of this process, a copy of it on each node's
own disk, or a container.

Slurm's commands always run outside the container, with this process's own Python.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from common.files import make_folder
from slurm.commands.command_lines import TOGETHER, Allocation, Job
from slurm.commands.environment import CACHES
from trainer.doctor.findings import WARNING, Finding
from trainer.recipe import site

FOLDER = "{folder}"
"""Placeholder in a word of CONTAINER. The word is repeated for each folder to mount; in an option
of srun, only the value is.
"""
BIND = ("APPTAINER_BIND", "SINGULARITY_BIND")
"""Apptainer reads the second one only if the first is not set; Singularity knows only the second.
"""
BINDING = ("apptainer", "singularity")
SET_UP = (".ready", ".flash-attn")
"""Files that set-up writes into an environment after a change."""
SHARED_NODES = 8
"""Maximum number of nodes that should import from a shared file system."""
COPY_SECONDS = 1200
"""Seconds that the last node may take to copy after the first one is done."""


@dataclass(frozen=True)
class Stack:
    """How the job's steps run Python."""

    allocation: Allocation
    python: tuple[str, ...] = (sys.executable,)
    """The command; in a container, including the words that enter it."""
    options: tuple[str, ...] = ()
    """The site's options of every srun."""
    by_srun: bool = False
    """Whether srun itself enters the container."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the container's command reads."""
    archive: Path | None = None
    """The archive that is unpacked on each node first."""

    @staticmethod
    def of(job: Job, config: DictConfig | None, *more: Path) -> Stack:
        """Returns the stack that the site file chooses. A container mounts the folders of
        ``config``, which the job creates if they are missing, and ``more``.

        Raises UserError when the site's choices contradict each other, the archive is missing or
        older than the environment, or a folder cannot be created or bound.
        """
        options, container = site.words("SRUN_OPTIONS"), site.words("CONTAINER")
        place = os.environ.get("LOCAL_ENV", "")
        if container and place:
            raise UserError(
                f"{site.FILE}: LOCAL_ENV copies an environment, but CONTAINER uses none: remove "
                "one of the two"
            )
        if container:
            if not job.submission:
                for path in _written(config):
                    make_folder(path)
            return _in_container(job.allocation, options, container, _folders(config, more))
        if not place:
            return Stack(job.allocation, options=tuple(options))
        archive = _archive(Path(sys.prefix))
        key = archive.stem.rpartition("-")[2]
        python = Path(place) / f"warmstart-{getpass.getuser()}-{key}" / "bin" / "python"
        return Stack(job.allocation, (str(python),), tuple(options), archive=archive)

    def srun(self, *words: str, wait: int = TOGETHER) -> list[str]:
        """Returns the srun command as ``Allocation.srun`` does, with the site's options."""
        return self.allocation.srun(*self.options, *words, wait=wait)

    def alone(self, *words: str) -> list[str]:
        """Returns the command of one Python process on the first node, where this process runs."""
        if not self.by_srun:
            return [*self.python, *words]
        one = replace(self.allocation, nodes=1, tasks=1)
        return one.srun(*self.options, "--ntasks=1", *self.python, *words)

    def copy(self) -> list[str]:
        """Returns the command that unpacks the environment on each node; empty if nothing is to be
        copied.
        """
        if self.archive is None:
            return []
        one = replace(self.allocation, tasks=1)
        folder = str(Path(self.python[0]).parent.parent)
        return one.srun(
            *self.options,
            # Otherwise the job's number of tasks would count.
            f"--ntasks={one.nodes}",
            # Otherwise srun's code would be that of the tasks it kills.
            "--kill-on-bad-exit=0",
            *("bash", "slurm/local_env.sh", str(self.archive), folder),
            wait=COPY_SECONDS,
        )

    def advice(self) -> Iterator[Finding]:
        """Yields a finding if many nodes import from a shared file system."""
        nodes = self.allocation.nodes
        if self.python == (sys.executable,) and nodes > SHARED_NODES:
            fix = "make env-archive, then LOCAL_ENV=/tmp in slurm/site.env (docs/clusters.md)"
            text = f"every process of {nodes} nodes opens some 14,000 files in {sys.prefix}"
            yield Finding(WARNING, "environment", text, fix)


def _in_container(
    allocation: Allocation, options: Sequence[str], container: Sequence[str], paths: Sequence[Path]
) -> Stack:
    # A container's own working directory is the image's.
    python = ("env", f"--chdir={Path.cwd()}", "python")
    if container[0].startswith("-"):  # options of srun, of which the last one counts
        own = []
        for word in container:
            name, equals, value = word.partition("=")
            shown = [value.replace(FOLDER, str(path)) for path in paths]
            own.append(name + equals + ",".join(shown if FOLDER in value else [value]))
        return Stack(allocation, python, (*options, *own), by_srun=True)
    words: list[str] = []
    for word in container:
        many = FOLDER in word
        words += [word.replace(FOLDER, str(path)) for path in paths] if many else [word]
    variables = _bind(paths) if Path(words[0]).name in BINDING else {}
    return Stack(allocation, (*words, *python), tuple(options), variables=variables)


def _bind(paths: Iterable[Path]) -> dict[str, str]:
    """Returns the variables that make Apptainer and Singularity bind ``paths``, after the user's
    own.
    """
    own = [part for name in BIND for part in os.environ.get(name, "").split(",") if part]
    value = ",".join(dict.fromkeys([*own, *map(str, paths)]))
    return dict.fromkeys(BIND, value)


def _written(config: DictConfig | None) -> list[Path]:
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    own = [] if config is None else [config.run.root, config.data.dir]
    caches = [os.environ[name] for name in CACHES if name in os.environ]
    return [Path(path) for path in (*own, HF_HOME, HF_HUB_CACHE, *caches)]


def _folders(config: DictConfig | None, more: Iterable[Path]) -> list[Path]:
    """Returns the folders that ranks and engines use, without folders inside another; the checkout
    is among them or in one of them.
    """
    read = [] if config is None else [config.model.path, config.eval.benchmarks]
    used = [Path.cwd(), *_written(config), *more, Path(tempfile.gettempdir())]
    used += [Path(path) for path in read if Path(path).is_dir()]
    kept: list[Path] = []
    # A link is bound under its own name and where it leads. Parents come before their children.
    for path in sorted({place for each in used for place in (each.absolute(), each.resolve())}):
        if not any(path.is_relative_to(parent) for parent in kept):
            kept.append(path)
    if wrong := next((path for path in kept if set(":,") & set(str(path))), None):
        raise UserError(f"{wrong}: a container cannot mount a folder with : or , in its name")
    return kept


def _archive(environment: Path) -> Path:
    """Returns the newest archive of the environment."""
    make = f"make env-archive VENV={environment}"
    form = re.compile(re.escape(environment.name) + r"-[0-9a-f]{12}\.tar")
    found = [path for path in environment.parent.iterdir() if form.fullmatch(path.name)]
    found.sort(key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"LOCAL_ENV needs an archive of {environment}: {make}")
    ready = [path for name in SET_UP if (path := environment / name).exists()]
    if any(path.stat().st_mtime > found[-1].stat().st_mtime for path in ready):
        raise UserError(f"{found[-1]} is older than {environment}: {make}")
    return found[-1]
