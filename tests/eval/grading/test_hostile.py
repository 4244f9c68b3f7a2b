"""Texts that break graders leave the others' grades as they are, and grading can be stopped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.records import UNJUDGED
from eval.grading.grade import grade_file, verify
from tests.conftest import ROOT
from tests.eval.grading.texts import HOSTILE, RIGHT


@pytest.mark.timeout(300)
def test_hostile_texts_leave_the_pool_alive(tmp_path: Path) -> None:
    """Each is a rollout between ordinary ones, which are graded as if they stood alone."""
    lines = []
    for i, (name, text) in enumerate(HOSTILE.items()):
        lines.append({"id": name, "gold": "7", "text": f"<think></think>{text}"})
        lines.append({"id": f"right {i}", "gold": str(i), "text": f"<think></think>\\boxed{{{i}}}"})
        lines.append(
            {"id": f"wrong {i}", "gold": str(i), "text": f"<think></think>\\boxed{{{i + 1}}}"}
        )
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    grades = {
        line["id"]: line for line in map(json.loads, grade_file(path).read_text().splitlines())
    }
    assert list(grades) == [line["id"] for line in lines]
    for name, got in grades.items():
        if name in HOSTILE:
            assert got["exact"] == (name in RIGHT), name
            assert got["verified"] in (True, False, UNJUDGED), name
        else:
            assert got["exact"] == got["verified"] == name.startswith("right"), name
    assert {grades[name]["verified"] for name in ("tower", "power")} == {UNJUDGED}


def test_hostile_golds() -> None:
    golds = ("10^{10^{10}}", "}{", "", "7" * 1_000_000)
    opinions = verify((r"\boxed{7}", gold) for gold in golds)
    assert list(opinions.values()) == [UNJUDGED, False, False, UNJUDGED]


def test_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    towers = (
        f"\\boxed{{10^{{10^{{1{i:03}}}}}}}" for i in range(400)
    )  # ten minutes of processor time
    path.write_text(
        "".join(json.dumps({"id": "a", "gold": "7", "text": tower}) + "\n" for tower in towers)
    )
    command = [sys.executable, "-m", "warmstart", "grade", str(path)]
    with subprocess.Popen(command, cwd=ROOT) as grading:
        workers: set[int] = set()
        while len(workers) < 6:  # some were replaced, so judgements are made
            workers |= {p.pid for p in psutil.Process(grading.pid).children(recursive=True)}
            assert grading.poll() is None
            time.sleep(0.1)
        grading.send_signal(signal.SIGINT)
        assert grading.wait(100) == 75
    assert list(tmp_path.iterdir()) == [path]
