"""A job that Slurm refuses to requeue: its successor, and the limits of such a chain; with
stand-ins for Slurm's commands.
"""

import os
import shlex
from pathlib import Path

import pytest

from common.exit_codes import FAILED, PREFLIGHT, STOPPED
from slurm.queue.exit_code import leave_code
from slurm.queue.requeue import chain, conclude
from tests.slurm.test_queue import calls, program
from trainer.run.folder import INCIDENTS, REQUEUES, SUBMISSIONS, Run
from trainer.run.model_label import ModelLabel

SHOWN = (
    "JobId={job} {array}JobName=a run UserId=me(1) GroupId=me(1) MCS_label=N/A Priority=1 Nice=0 "
    "Account=p200 QOS=short JobState=RUNNING Reason=None Dependency=(null) Requeue=0 Restarts=0 "
    "TimeLimit=02:00:00 TimeMin=N/A Partition=gpu AllocNode:Sid=login:1 ReqNodeList=(null) "
    "ExcNodeList=n[3-4] NodeList=n[1-2] NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 "
    "MinCPUsNode=1 MinMemoryNode=490000M MinTmpDiskNode=0 Features=a100&fast DelayBoot=00:00:00 "
    "OverSubscribe={shared} Contiguous=0 Licenses=(null) Network=(null) "
    "Command={folder}/slurm/sft_4b.sh{words} WorkDir={folder} StdErr={log} StdIn=/dev/null "
    "StdOut={log} Power= {memory}TresPerNode=gres:gpu:{gpus} MailUser=me@x MailType=END,FAIL"
)
SCRIPT = """#!/bin/bash
#SBATCH --gpus-per-node=4
#SBATCH --output=%x-%j.log
"""
WORDS = ["recipe=tiny", "run.name=a 'b'"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "x")
    run.root.mkdir(parents=True)
    return run


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins on PATH for a job in a checkout, of which Slurm refuses a requeue."""
    checkout, folder = tmp_path / "a checkout", tmp_path / "programs"
    for path in (checkout / "slurm", folder):
        path.mkdir(parents=True)
    (checkout / "slurm" / "sft_4b.sh").write_text(SCRIPT)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    variables = {"JOB_NAME": "a run", "JOB_NUM_NODES": "2", "NTASKS_PER_NODE": "4"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    enter("7", folder, monkeypatch)
    program(folder, "sinfo", "seq --format='n%g idle' 9")
    program(folder, "sbatch", f"echo $(( 8 + $(grep -c parsable '{folder}/sbatch.calls') ))")
    return folder


def enter(
    job: str, programs: Path, monkeypatch: pytest.MonkeyPatch, index: str = "", **facts: str
) -> None:
    """Makes this process one of the job."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    if index:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
    folder = programs.parent / "a checkout"
    usual = {
        "array": f"ArrayJobId=5 ArrayTaskId={index} " if index else "",
        "words": "".join(f" {word}" for word in WORDS),
        "log": f"{folder}/a run-{job}.log",
        "shared": "OK",
        "memory": "",
        "gpus": "4",
    }
    (programs / "shown").write_text(SHOWN.format(job=job, folder=folder, **{**usual, **facts}))
    refusal = "echo 'Requested operation is presently disabled for job' >&2; exit 1"
    program(
        programs,
        "scontrol",
        f"case $1$2 in requeue*) {refusal};; showhostnames) printf 'n3\\nn4\\n';; "
        f"show*) cat '{programs}/shown';; esac",
    )


def saved(run: Run, step: int) -> None:
    run.checkpoint(step).mkdir(parents=True)
    (run.checkpoint(step) / "manifest.json").write_text("{}")


def test_a_successor_leaves_out_the_node_that_was_broken(run: Run, programs: Path) -> None:
    fault = {"node": "n1", "what": "peers", "cause": "no message"}
    run.note(INCIDENTS, {"job": "7", "start": 1, **fault})
    leave_code(run.root, PREFLIGHT)
    assert conclude(run, 0, WORDS) == PREFLIGHT
    assert "--exclude=n1,n3,n4" in calls(programs, "sbatch")
    assert run.notes(REQUEUES)[-1]["ended"] == "broken"


def test_a_successor_is_asked_for_as_the_job_was(
    run: Run, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_code(run.root, STOPPED)
    assert conclude(run, 0, WORDS) == STOPPED
    assert calls(programs, "sbatch") == [
        "--parsable",
        "--dependency=afterany:7",
        "--job-name=a run",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--account=p200",
        "--partition=gpu",
        "--qos=short",
        "--time=02:00:00",
        "--constraint=a100&fast",
        "--mem=490000M",
        "--mail-user=me@x",
        "--mail-type=END,FAIL",
        "--no-requeue",
        "--exclude=n3,n4",
        f"{Path.cwd()}/slurm/sft_4b.sh",
        *WORDS,
    ]
    out = capsys.readouterr().out
    assert "presently disabled for job: job 9 continues when this one has ended" in out
    line = run.notes(REQUEUES)[-1]
    assert (line["job"], line["successor"], line["requeued"]) == ("7", "9", True)


def test_what_the_command_line_had_besides_is_asked_for_again(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"gpus": "a100:2", "shared": "NO", "memory": "MemPerTres=gres:gpu:61440 "}
    enter("7", programs, monkeypatch, log="/logs/my log.txt", **facts)
    assert conclude(run, STOPPED, WORDS) == STOPPED
    options = calls(programs, "sbatch")
    assert {"--gpus-per-node=a100:2", "--exclusive", "--output=/logs/my log.txt"} <= {*options}
    # sbatch takes one kind of memory only.
    assert [o for o in options if o.startswith("--mem")] == ["--mem-per-gpu=61440"]


def test_of_an_array_only_the_index_goes_on(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("7", programs, monkeypatch, index="2")
    assert conclude(run, STOPPED, WORDS) == STOPPED
    assert {"--dependency=afterany:5_2", "--array=2"} <= {*calls(programs, "sbatch")}


def test_the_limits_are_those_of_the_chain(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = []
    for count, job in enumerate(("7", "9", "10", "11"), 1):
        enter(job, programs, monkeypatch)
        saved(run, count)
        (programs / "sbatch.calls").write_text("parsable\n" * (count - 1))
        assert conclude(run, FAILED, WORDS) == FAILED
        begins += [word for word in calls(programs, "sbatch") if word.startswith("--begin")]
    assert begins == ["--begin=now+60", "--begin=now+120", "--begin=now+240"]
    last = run.notes(REQUEUES)[-1]
    assert (last["job"], last["requeued"]) == ("11", False)
    assert last["reason"] == "crashed 4 times in a row"
    # Another chain of the run counts for itself.
    enter("20", programs, monkeypatch)
    conclude(run, FAILED, WORDS)
    assert run.notes(REQUEUES)[-1]["successor"]


def test_a_chain_without_progress_ends(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(run, 5)
    conclude(run, STOPPED, WORDS)
    enter("9", programs, monkeypatch)
    assert conclude(run, STOPPED, WORDS) == STOPPED
    last = run.notes(REQUEUES)[-1]
    assert not last["requeued"] and "no progress since the last requeue" in last["reason"]
    assert calls(programs, "sbatch").count("--parsable") == 1


def test_an_evaluations_successor_is_the_same_evaluation(run: Run, programs: Path) -> None:
    for job, label in (("6", "4"), ("7", "8")):
        run.note(SUBMISSIONS, {"label": label, "settings": "s", "job": job})
    saved(run, 8)
    assert conclude(run, STOPPED, WORDS, ModelLabel(8)) == STOPPED
    added = run.notes(SUBMISSIONS)[2:]
    assert [(n["label"], n["settings"], n["job"]) for n in added] == [("8", "s", "9")]
    run.note(SUBMISSIONS, {"label": "8", "settings": "s", "job": "7", "ended": "FAILED"})
    assert 8 in run.awaited, "its successor is alive"


def test_if_sbatch_refuses_too_the_log_has_what_to_run(
    run: Run, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "sbatch", "echo 'sbatch: error: only from the login node' >&2; exit 1")
    assert conclude(run, FAILED, WORDS) == FAILED
    out = capsys.readouterr().out
    assert "not requeued: Requested operation is presently disabled for job; sbatch refuses" in out
    assert "sbatch: error: only from the login node" in out
    line = out.partition("to continue, run ")[2].rpartition(" in ")[0]
    words = shlex.split(line)
    assert words[0] == "sbatch" and words[-3:] == [f"{Path.cwd()}/slurm/sft_4b.sh", *WORDS]
    assert "--nodes=2" in words and not [w for w in words if "begin" in w or "dependency" in w]
    assert not run.notes(REQUEUES)[-1]["requeued"]
    assert not [n for n in chain(run.notes(REQUEUES), "7") if n["requeued"]], "counts as no requeue"


def test_spoilt_lines_do_not_change_the_decision(run: Run, programs: Path) -> None:
    for _ in range(2):
        with (run.root / REQUEUES).open("a") as f:
            f.write('{"job": "7", "requ{"job"\n{"job": "7"}\n')
        saved(run, 1 + len(run.checkpoints))
        assert conclude(run, STOPPED, WORDS) == STOPPED
    assert calls(programs, "sbatch").count("--parsable") == 2
