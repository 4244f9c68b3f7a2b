"""The check loses no row: not to a case that fails or hangs, nor to its own end."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, environment
from tests.gpu import rows, stand_ins
from tests.gpu.bench import Bench
from tests.gpu.cases import CASES, NAMES, Case, chosen
from tests.gpu.check import LIMIT, NO_DEVICE, TOTAL, close
from tests.gpu.rows import FAILED, PASSED, RUN, SKIPPED, Row
from tests.gpu.runner import Runner
from tests.gpu.setting import LOGITS_COPIES, fitting, on_gpu, rehearsal
from trainer.planning import memory
from trainer.planning.workload import KNOWN

HERE = "tests.gpu.test_check"
GIB = 2**30


def works(bench: Bench) -> None:
    bench.figure("answer", "", 42.0)


def breaks(bench: Bench) -> None:
    bench.figure("before", "", 1.0)
    print("Error: not this line, though it is an error's")
    raise LookupError("no such kernel")


def misses(bench: Bench) -> None:
    bench.figure("error", "relative", 0.5, limit=0.1)


def hangs(bench: Bench) -> None:
    """With a process of its own, which does not listen to polite signals."""
    child = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"])
    bench.figure("pid", "", float(os.getpid()))
    bench.figure("pid of its child", "", float(child.pid))
    time.sleep(600)


def silent(bench: Bench) -> None:
    return None


def quits(bench: Bench) -> None:
    os._exit(7)


def case(name: str, **values: Any) -> Case:
    return Case(name, name, f"{HERE}:{name}", 0, **values)


def runner(folder: Path, limit: float = 60.0, seconds: float = 600.0) -> Runner:
    out, work = folder / "check.jsonl", folder / "work"
    work.mkdir()
    rows.append(out, {RUN: {"device": "CPU"}})
    return Runner(rehearsal(), work, out, limit, time.monotonic() + seconds)


def statuses(out: Path) -> list[tuple[str, str, str]]:
    return [(row.case, row.metric, row.status) for row in rows.read(out).rows]


def alive(pid: float) -> bool:
    return psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


def test_a_failed_case_is_a_row_with_the_last_line_of_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = runner(tmp_path)
    check.run([case("breaks"), case("misses"), case("silent"), case("quits"), case("works")])
    assert statuses(check.out) == [
        ("breaks", "before", PASSED),
        ("breaks", "case", FAILED),
        ("misses", "error", FAILED),
        ("silent", "case", FAILED),
        ("quits", "case", FAILED),
        ("works", "answer", PASSED),
    ]
    notes = {row.case: row.note for row in rows.read(check.out).rows if row.metric == "case"}
    assert notes == {
        "breaks": "LookupError: no such kernel",
        "silent": "it left no row",
        "quits": "exit code 7 without an error",
    }
    assert check.passed == {"works"}
    assert not check.folder.exists()
    assert close(check.out) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"gpu-check: 2 passed, 4 failed, 0 skipped ({check.out})"
    )
    assert json.loads(check.out.read_text().splitlines()[-1]) == {
        "closing": {PASSED: 2, FAILED: 4, SKIPPED: 0}
    }


def test_a_case_that_hangs_is_ended_at_its_limit_and_loses_only_itself(tmp_path: Path) -> None:
    check = runner(tmp_path, limit=10.0)
    check.run([case("hangs"), case("works")])
    found = rows.read(check.out).rows
    assert [row.metric for row in found] == ["pid", "pid of its child", "case", "answer"]
    assert found[2].status == FAILED and found[2].note == "not done in 10 s"
    assert not any(alive(row.ours) for row in found[:2] if row.ours)
    assert found[3].status == PASSED


def test_what_cannot_run_is_skipped_and_says_why(tmp_path: Path) -> None:
    check = runner(tmp_path, seconds=100.0)
    check.run(
        [
            case("works"),
            case("silent", needs=("no_such_package",)),
            case("hangs", after=("silent",)),
            case("misses", unless="works"),
            case("breaks", gpu=True),
            Case("late", "late", f"{HERE}:works", 101),
        ]
    )
    notes = [row.note for row in rows.read(check.out).rows if row.status == SKIPPED]
    assert notes[:4] == [
        "no_such_package is not installed",
        "it needs the case silent, which did not succeed",
        "works worked, which is the faster one",
        "it needs a GPU",
    ]
    assert notes[4].endswith("s were left, and it takes 101 s")
    assert close(check.out) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_check_keeps_its_rows_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        f"from {HERE} import *; runner(Path({str(tmp_path)!r})).run([case('works'), case('hangs')])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    out = tmp_path / "check.jsonl"
    until(lambda: out.exists() and out.read_text().count("\n") == 4)
    pids = [row.ours for row in rows.read(out).rows[1:] if row.ours]
    assert len(pids) == 2 and all(map(alive, pids))
    process.send_signal(number)
    process.wait()
    until(lambda: not any(map(alive, pids)) and not (tmp_path / "work").exists())
    assert [row.metric for row in rows.read(out).rows] == ["answer", "pid", "pid of its child"]


def test_stand_ins_answer_only_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that verl uses while it is imported."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(stand_ins, "PACKAGES", ("ray_that_is_missing", "yaml"))
    stand_ins.install()
    missing: Any = importlib.import_module("ray_that_is_missing")

    @missing.remote
    def plain() -> int:
        return 1

    @missing.remote(num_cpus=1)
    class Actor:
        handle: Any = missing.actor.ActorHandle | missing.ObjectRef

    assert plain() == 1 and Actor.handle
    assert type("Derived", (missing.util.Base,), {}).__mro__[1].__name__ == "Base"
    assert importlib.import_module("ray_that_is_missing.util.placement_group").PlacementGroup
    assert importlib.import_module("yaml").safe_load("1") == 1
    assert importlib.util.find_spec("another_that_is_missing") is None


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command where no device is to be seen."""
    command = [sys.executable, "-m", "tests.gpu.check", *words]
    hidden = environment() | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)


def test_without_a_device_it_says_so_and_exits_3(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "check.jsonl"))
    assert (done.returncode, done.stdout) == (3, NO_DEVICE + "\n")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (there := tmp_path / "there.jsonl").touch()
    wrong = {
        "name another file": ["--out", str(there)],
        "no case our": ["--out", "x", "--cases", "our"],
    }
    for said, words in wrong.items():
        done = run(*words)
        assert done.returncode == 2 and said in done.stdout and done.stdout.count("\n") == 1


def test_a_row_that_is_no_number_fails() -> None:
    assert rows.figure("a", "b", "", float("nan"), limit=1.0).status == FAILED
    assert rows.figure("a", "b", "", 1.0, limit=1.0) == Row("a", "b", ours=1.0, limit=1.0)
    assert rows.figure("a", "b", "", 3.0, peer=2.0).ratio == 1.5


def test_all_cases_of_the_short_check_fit_its_time() -> None:
    short = chosen([], short=True)
    usual = [c for c in short if c.unless is None and c.needs != ("vllm",)]
    assert sum(c.seconds for c in usual) < 0.9 * TOTAL < TOTAL < 8 * 60
    assert all(c.seconds <= LIMIT for c in short)
    assert len(set(NAMES)) == len(NAMES)


def test_cases_bring_those_that_they_need() -> None:
    assert [c.name for c in chosen(["resume"], short=True)] == ["model", "save", "resume"]
    assert (
        {c.name for c in chosen([], short=False)}
        == set(NAMES)
        > {c.name for c in chosen([], short=True)}
    )
    places = {c.name: i for i, c in enumerate(CASES)}
    assert all(places[before] < places[c.name] for c in CASES for before in c.after)


def test_all_layers_of_the_4b_fit_an_h200_and_fewer_an_h100() -> None:
    assert on_gpu("NVIDIA H200", 139.8 * GIB, 8192, short=False).loads["full"].layers == 36
    assert on_gpu("NVIDIA H100", 79.1 * GIB, 8192, short=True).loads["full"].layers == 12
    shape, setup = KNOWN["Qwen/Qwen3-4B-Base"], memory.Setup(1, 1, 8192, "selective")
    fits = fitting(shape, setup, 79.1 * GIB)
    assert 20 < fits.layers < 36
    logits = 2 * LOGITS_COPIES * shape.vocabulary * 8192
    assert sum(memory.on_gpu(memory.peak(fits, setup)).values()) + logits <= 79.1 * GIB
    with pytest.raises(ValueError, match="lower --length"):
        fitting(shape, setup, GIB)
