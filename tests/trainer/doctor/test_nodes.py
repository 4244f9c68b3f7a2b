"""Which node is to blame: ranks that do not come, a slow one, one GPU for two, and the lines for
the job script.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.doctor import binding, nodes
from trainer.doctor.findings import FATAL, OK, Finding
from trainer.doctor.incidents import record
from trainer.recipe import load as configs
from trainer.run.folder import INCIDENTS, Run

EXPECTED = {"n1": 2, "n2": 2, "n3": 2}


def notes(*hosts: str, gpus: str = "") -> list[nodes.Note]:
    return [
        nodes.Note(rank, host, {}, [], f"GPU-{gpus[rank]}" if gpus else "")
        for rank, host in enumerate(hosts)
    ]


def test_nodes_without_a_message_are_named() -> None:
    came = notes("n1", "n1", "n2")
    found = nodes.missing([3, 4, 5], 6, came, timedelta(minutes=2), EXPECTED)
    assert {node: finding.cause for node, finding in found.items()} == {
        "n2": "no message from 1 of 2 ranks within 120 s",
        "n3": "no message from 2 of 2 ranks within 120 s",
    }
    for unknown in ({}, {"other": 2}):
        (where, finding), *_ = nodes.missing([3], 4, came, timedelta(minutes=2), unknown).items()
        assert where == "" and "rank 3 of 4 within 120 s; present: n1, n2" in finding.cause


def test_the_slowest_rank_is_named_and_on_gpus_it_is_a_fault() -> None:
    came = notes("n1", "n1", "n2", "n2")
    found = binding.slowest([1.0, 1.0, 2.0, 1.1], came, "cuda")
    assert list(found) == ["n2"] and found["n2"].level == FATAL
    assert found["n2"].cause == "the slowest is rank 2 with 52% of the median rank's speed"
    assert binding.slowest([1.0, 1.0, 2.0, 1.1], came, "cpu")["n2"].level == OK
    assert binding.slowest([1.0, 1.0, 1.2, 1.1], came, "cuda")["n2"].level == OK
    assert binding.slowest([], came, "cuda") == {}


def test_one_gpu_for_two_ranks() -> None:
    assert binding.sharing(notes("n1", "n1", "n2")) is None
    assert binding.sharing(notes("n1", "n1", "n2", gpus="010")) is None
    fault = binding.sharing(notes("n1", "n1", "n2", gpus="110"))
    assert fault and fault.level == FATAL and "ranks 0, 1 on n1" in fault.cause


@pytest.mark.parametrize(("local", "visible", "own"), [(0, 0, ""), (2, 2, ""), (1, 2, "GPU-1")])
def test_a_ranks_gpu_or_that_it_has_none(
    local: int, visible: int, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees none at all, or fewer than its node has ranks, or its own too."""
    import torch

    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}")
    )
    assert binding.gpu(configs.load("sft_4b")) == own
    assert binding.gpu(configs.load("tiny")) == ""


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ("2(x3)", {"n1": 2, "n2": 2, "n3": 2}),
        ("4,1(x2)", {"n1": 4, "n2": 1, "n3": 1}),
        ("2(x2)", {}),
    ],
)
def test_ranks_by_node(tasks: str, expected: Mapping[str, int]) -> None:
    step = {"NODE_NAMES": "n1 n2 n3", "SLURM_STEP_TASKS_PER_NODE": tasks}
    assert binding.ranks_by_node(step) == expected
    assert binding.ranks_by_node({}) == {}


def test_the_cores_that_a_rank_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(binding.cores()) == []
    for name, value in {
        "STEP_ID": "0",
        "PROCID": "0",
        "STEP_NUM_TASKS": "4",
        "CPUS_PER_TASK": "8",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5})
    (finding,) = binding.cores()
    assert (finding.level, finding.cause) == (FATAL, "a rank may use 1, --cpus-per-task=8")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [finding.level for finding in binding.cores()] == [OK]
    # A task may ask for more than a small machine has.
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert [finding.level for finding in binding.cores()] == [OK]


def fatal(what: str) -> Finding:
    return Finding(FATAL, what, f"{what} is broken")


@pytest.mark.parametrize(
    ("found", "blamed"),
    [
        ({"n1": [], "n2": [fatal("GPUs")]}, ["n2"]),
        ({"n1": [fatal("GPUs")], "n2": [fatal("GPUs")]}, []),
        ({"n1": [fatal("dataset")], "n2": []}, []),
        ({"": [fatal("peers")], "n1": []}, []),
        ({"n1": [fatal("GPU health")]}, ["n1"]),
        ({"n1": [fatal("GPUs")]}, []),
        ({"n1": [Finding(OK, "GPUs", "4 here")], "n2": []}, []),
    ],
    ids=["one", "all", "the job's", "no node", "a broken GPU", "the only node", "well"],
)
def test_a_node_with_a_fault_of_its_own_is_an_incident(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, list[Finding]],
    blamed: list[str],
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run = Run(tmp_path)
    record(run, found)
    lines = run.notes(INCIDENTS)
    assert [line["node"] for line in lines] == blamed
    assert all((line["job"], line["start"]) == ("7", 3) for line in lines)
