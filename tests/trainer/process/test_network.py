"""The addresses and ports at which nodes meet: with stub commands, and with real ranks in two
network namespaces that name themselves as Debian's hosts file does.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from tests.conftest import ROOT
from trainer.process.network import addresses, free_port, interface
from trainer.process.process_group import slurm_environment, under_slurm


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("NODE_SUFFIX", raising=False)
    return tmp_path / "scontrol"


def shown(scontrol: Path, *nodes: str) -> dict[str, str]:
    lines = "\n".join(
        f"NodeName={n} Arch=x86_64 NodeAddr={a} NodeHostName={n}"
        for n, a in (n.split() for n in nodes)
    )
    scontrol.write_text(
        f"#!/bin/sh\n[ $2 = node ] || exec printf 'n1\\nn2\\n'\ncat <<'.'\n{lines}\n.\n"
    )
    scontrol.chmod(0o755)
    return addresses("n[1-2]", "n1")


def test_a_nodes_address_is_one_that_the_others_can_reach(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = shown(scontrol, "n2 127.0.0.12", "n1 127.0.0.11")
    assert both == {"n1": "127.0.0.11", "n2": "127.0.0.12"}
    own = shown(scontrol, "n1 127.0.1.1", "n2 192.0.2.1")["n1"]
    assert own != "127.0.1.1"
    with socket.socket() as s:
        s.bind((own, 0))  # this host has the address
    with pytest.raises(UserError, match=r"no-such-host.invalid of node n2 does not resolve on n1"):
        shown(scontrol, "n1 127.0.0.1", "n2 no-such-host.invalid")
    # A node that the controller does not show is found by its name.
    monkeypatch.setattr("socket.gethostbyname", {"n2": "127.0.0.2", "127.0.0.11": "127.0.0.11"}.get)
    assert shown(scontrol, "n1 127.0.0.11") == {"n1": "127.0.0.11", "n2": "127.0.0.2"}


def test_a_suffix_leads_to_the_fast_network(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_SUFFIX", "i")
    monkeypatch.setattr("socket.gethostbyname", {"n1i": "10.0.0.1", "n2i": "10.0.0.2"}.get)
    assert shown(scontrol, "n1 127.0.0.11") == {"n1": "10.0.0.1", "n2": "10.0.0.2"}
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=":")
    monkeypatch.setenv("NODE_SUFFIX", ".invalid")
    with pytest.raises(UserError, match=r"n1.invalid .* see NODE_SUFFIX=.invalid in slurm/site.e"):
        shown(scontrol, "n1 127.0.0.11")


def test_the_interface_is_that_of_the_way_to_an_address() -> None:
    assert interface("127.0.0.1") == "lo"
    assert interface("no-such-host.invalid") is None


def test_only_ranks_are_under_slurm() -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "16"}
    assert under_slurm(step | {"SLURM_STEP_NUM_TASKS": "2"})
    # A shell by srun --pty, or a notebook: one task of its step, whatever its allocation has.
    assert not under_slurm(step | {"SLURM_STEP_NUM_TASKS": "1"})
    assert not under_slurm(step | {"SLURM_STEP_NUM_TASKS": "1", "MASTER_PORT": "20000"})
    assert under_slurm(step | {"SLURM_STEP_NUM_TASKS": "1", "NODE_NAMES": "n1"})
    assert not under_slurm({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"})


def test_what_the_site_has_set_stays() -> None:
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "20001",
    }
    found = slurm_environment(step)
    assert found["GLOO_SOCKET_IFNAME"] == "lo"
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert slurm_environment(step | {"GLOO_SOCKET_IFNAME": "ib0"})["GLOO_SOCKET_IFNAME"] == "ib0"


RANK = """
import os
from datetime import timedelta

from trainer.process import process_group

os.environ.update(process_group.slurm_environment(os.environ))
process_group.join("cpu", "env://", timedelta(seconds=20))

import torch
import torch.distributed as dist

one = torch.ones(1)
dist.all_reduce(one)
print("sum", one.item(), "over", os.environ["GLOO_SOCKET_IFNAME"], os.environ["MASTER_ADDR"])
dist.destroy_process_group()
"""
HOSTS = {
    "n1": "127.0.0.1 localhost\n127.0.1.1 n1\n10.77.0.2 n2\n",
    "n2": "127.0.0.1 localhost\n10.77.0.1 n1\n127.0.1.1 n2\n",
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_hosts() -> Iterator[dict[str, str]]:
    """{node: its network namespace}, joined by one cable; needs root and iproute2."""
    spaces = {f"n{i}": f"warmstart{os.getpid()}n{i}" for i in (1, 2)}
    ends = [f"ws{os.getpid() % 10**6}{i}" for i in (1, 2)]
    try:
        for space in spaces.values():
            ip("netns", "add", space)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"no network namespaces here: {e}")
    try:
        first, second = spaces.values()
        ip("link", "add", ends[0], "netns", first, "type", "veth", "peer", ends[1], "netns", second)
        for number, (space, end) in enumerate(zip(spaces.values(), ends, strict=True), 1):
            ip("-n", space, "link", "set", end, "name", "cable")
            ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", "cable", "up")
        yield spaces
    finally:
        for space in spaces.values():
            ip("netns", "del", space)


@pytest.mark.parametrize("preset", [None, "n1"], ids=["Slurm's address", "preset"])
def test_ranks_whose_own_name_is_a_loopback_address_meet(
    two_hosts: dict[str, str], tmp_path: Path, preset: str | None
) -> None:
    """Gloo by itself would listen at the address of the host's name, 127.0.1.1 (a preset name is
    looked up on each host, so there only the second one's is).
    """
    (tmp_path / "scontrol").write_text(
        "#!/bin/sh\n[ $2 = node ] || exec printf 'n1\\nn2\\n'\n"
        "echo NodeName=n1 NodeAddr=n1 X\necho NodeName=n2 NodeAddr=n2 X\n"
    )
    (tmp_path / "scontrol").chmod(0o755)
    ranks = []
    for number, (node, space) in enumerate(two_hosts.items()):
        hosts = tmp_path / f"hosts-{node}"
        own = HOSTS[node].replace("127.0.1.1 n1", "10.77.0.1 n1") if preset else HOSTS[node]
        hosts.write_text(own)
        task = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NODELIST": "n[1-2]",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": "0",
            "SLURMD_NODENAME": node,
            "MASTER_PORT": "29555",
            "OMP_NUM_THREADS": "1",
        }
        if preset:
            task["MASTER_ADDR"] = preset
        inside = f'hostname {node}; mount --bind "$0" /etc/hosts; exec "$1" -c "$2"'
        words = ["ip", "netns", "exec", space, "unshare", "--uts", "--mount", "bash", "-c", inside]
        ranks.append(
            subprocess.Popen(
                [*words, str(hosts), sys.executable, RANK],
                cwd=ROOT,
                env={k: v for k, v in os.environ.items() if k != "GLOO_SOCKET_IFNAME"} | task,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for rank in ranks:
        out, _ = rank.communicate(timeout=120)
        assert f"sum 2.0 over cable {preset or '10.77.0.1'}" in out, out


def test_the_port_is_one_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("", port))
        taken.listen()
        monkeypatch.setattr("random.sample", lambda *_: [port, port + 1])
        assert free_port() == port + 1
