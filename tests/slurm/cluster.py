"""A real Slurm cluster of four nodes on this machine, in a folder of its own.

Debian's slurm-wlm and munge; every daemon runs in the foreground, with ports, keys and sockets that
nothing else uses, and dies with the process that started it. What a killed session left (Slurm's
step daemons outlive slurmd) is known by its cluster's folder and ended by the next one.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import debian

PACKAGES = ("slurm-wlm", "munge")
PREFIX = "warmstart-slurm-"
NODES = ("n1", "n2", "n3", "n4")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")

# cred_expire is also what a requeued job waits at least; config_overrides: nodes have more cores
# than there are.
CONFIG = """
ClusterName=warmstart
SlurmctldHost={host}
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin={plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=30
OverTimeLimit=1
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=ALL State=DOWN
"""


class Unavailable(RuntimeError):
    """Slurm is not here and cannot be installed; the message says why."""


class Cluster:
    """Commands on a running cluster. ``folder`` has its configuration and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))
        }
        self.environment["SLURM_CONF"] = str(folder / "slurm.conf")

    def call(self, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        """Returns the output of a client command, both streams. Raises AssertionError when it fails
        and ``check`` is true.
        """
        done = subprocess.run(
            words,
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def sbatch(self, *words: str, cwd: Path) -> str:
        """Submits a job in ``cwd``; returns its id."""
        return self.call("sbatch", "--parsable", *words, cwd=cwd).split()[-1]

    def job(self, number: str) -> dict[str, str]:
        """``scontrol show job``, by field."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", "-o", number)))

    def wait(self, number: str, seconds: float = 400) -> dict[str, str]:
        """The job once it has ended for good."""

        def ended() -> bool:
            return self.job(number)["JobState"] in OVER

        self.until(ended, seconds, lambda: str(self.job(number)))
        return self.job(number)

    def until(
        self, true: Callable[[], bool], seconds: float, what: Callable[[], str] = str
    ) -> None:
        """Waits for something to become true. Raises AssertionError when it does not."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not within {seconds} s: {what()}"
            time.sleep(0.3)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the cluster, its daemons included."""
        return [process for process, folder in _of_clusters() if folder == self.folder.name]


@contextmanager
def running(plugin: str = "task/none") -> Iterator[Cluster]:
    """A cluster for the length of a block; ``plugin`` is ``task/affinity`` where tasks are bound to
    cores as on real clusters. Raises Unavailable where there can be none.
    """
    _install()
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    cluster = Cluster(folder)
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        log = (folder / f"{Path(words[0]).name}.out").open("ab")
        daemons.append(
            subprocess.Popen(
                words,
                env=cluster.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_us,
            )
        )
        log.close()

    try:
        _configure(folder, plugin)
        start(
            "munged", "--foreground", "--force", *(f"--{o}={folder}/munge.{e}" for o, e in _MUNGE)
        )
        cluster.until(
            (folder / "munge.socket").exists, 20, lambda: (folder / "munged.out").read_text()
        )
        start("slurmctld", "-D", "-i", "-f", cluster.environment["SLURM_CONF"])
        for node in NODES:
            start("slurmd", "-D", "-N", node, "-f", cluster.environment["SLURM_CONF"])

        def up() -> bool:
            shown = cluster.call(
                "sinfo", "--noheader", "--partition=gpu", "--format=%T %D", check=False
            )
            return shown.split() == ["idle", "4"]

        cluster.until(up, 60, lambda: cluster.call("sinfo", "--long", "--Node", check=False))
        yield cluster
        cluster.call("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 45
        while (
            cluster.call("squeue", "--noheader", check=False).strip()
            and time.monotonic() < deadline
        ):
            time.sleep(0.3)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in cluster.processes():
            _kill(process)
        shutil.rmtree(folder)


_MUNGE = (
    ("socket", "socket"),
    ("key-file", "key"),
    ("pid-file", "pid"),
    ("log-file", "log"),
    ("seed-file", "seed"),
)


def sweep() -> None:
    """Ends what sessions that were killed left behind."""
    for process, folder in _of_clusters():
        if not psutil.pid_exists(_owner(folder)):
            _kill(process)
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not psutil.pid_exists(_owner(path.name)):
            shutil.rmtree(path)


def _install() -> None:
    """Installs the packages where they are missing."""
    if missing := debian.install(("sbatch", "slurmctld", "slurmd", "munged"), PACKAGES):
        raise Unavailable(f"{missing}, then run the tests as root")
    if os.getuid() != 0:
        raise Unavailable("slurmd starts jobs as root only: run the tests as root")


def _configure(folder: Path, plugin: str) -> None:
    host = os.uname().nodename
    ctld, *slurmd = _free_ports(1 + len(NODES))
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    folder.chmod(0o755)
    for gpu in ("gpu0", "gpu1"):
        # Only for devices does Slurm set CUDA_VISIBLE_DEVICES. These are as /dev/null is.
        os.mknod(folder / gpu, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"NodeName=n[1-4] Name=gpu File={folder}/gpu[0-1]\n")
    has = "CPUs=64 RealMemory=64000 Gres=gpu:2"
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1{number} Port={port} {has}"
        for number, (node, port) in enumerate(zip(NODES, slurmd, strict=True), 1)
    )
    (folder / "slurm.conf").write_text(
        CONFIG.format(host=host, ctld=ctld, folder=folder, nodes=nodes, plugin=plugin)
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _of_clusters() -> Iterator[tuple[psutil.Process, str]]:
    """Processes of any such cluster, with its folder's name.

    SLURM_CONF in the environment says it; slurmstepd, whose title overwrites its environment, by
    its open log.
    """
    for process in psutil.process_iter():
        try:
            signs = [process.environ().get("SLURM_CONF", "")]
            if process.name() == "slurmstepd":
                signs += [os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
        except (psutil.Error, OSError):
            continue
        found = re.search(rf"/({PREFIX}\d+-[^/]*)/", "\n".join(signs))
        if found and process.pid != os.getpid():
            yield process, found[1]


def _owner(folder: str) -> int:
    """The process that started a cluster, which its folder's name says."""
    return int(folder.removeprefix(PREFIX).partition("-")[0])


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
