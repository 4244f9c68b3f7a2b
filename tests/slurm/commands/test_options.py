"""The arguments of a job script: sbatch's options in every form and at every place."""

import os
from itertools import permutations
from pathlib import Path

import pytest

from common.errors import UserError
from slurm.commands.command_lines import Allocation, asked, planned
from slurm.commands.options import parse

SCRIPT = """#!/bin/bash
#SBATCH --nodes=4
#SBATCH -n 12  # ignored
#SBATCH --ntasks-per-node=3 --gpus-per-node 3
#SBATCH --cpus-per-task=5
#SBATCH --signal=B:USR1@77
"""


@pytest.mark.parametrize(
    "form", [["-N3"], ["-N", "3"], ["--nodes", "3"], ["--nodes=3"], ["-HN3"], ["-H", "-N", "3"]]
)
def test_an_option_has_many_forms(form: list[str]) -> None:
    for around in (["a=1", "b"], []):
        given = parse([*around, *form, "c=-1"])
        assert given.words == [*around, "c=-1"]
        assert [o for o in given.options if o[0] != "hold"] == [("nodes", "3")]
        assert given.lines[-1] == "--nodes=3"
        assert not given.dry_run and not given.help


def test_the_order_of_options_and_words_does_not_matter() -> None:
    parts = [["-t", "1:00:00"], ["train.lr=2e-5"], ["-Aacct"], ["--dry-run"]]
    for order in permutations(parts):
        given = parse([word for part in order for word in part])
        assert dict(given.options) == {"time": "1:00:00", "account": "acct"}
        assert (given.words, given.dry_run) == (["train.lr=2e-5"], True)


def test_a_value_is_taken_where_the_option_has_one() -> None:
    given = parse(["--exclusive", "x=1", "--nice=-5", "-k", "y", "--no-kill=off", "--requeue"])
    assert given.words == ["x=1", "y"]
    assert given.lines == ["--exclusive", "--nice=-5", "--no-kill", "--no-kill=off", "--requeue"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--node=3"], "sbatch has no option --node; did you mean --nodes?"),
        (["--dry"], "did you mean --dry-run?"),
        (["a=1", "-Z"], "sbatch has no option -Z"),
        (["-HZ"], "no option -Z"),
        (["-"], "has no option -"),
        (["--wrap=ls"], "no option --wrap"),
        (["x=1", "--nodes"], "--nodes needs a value"),
        (["-N", "--dry-run"], "-N needs a value"),
        (["--account", "--dry-run"], "--account needs a value"),
        (["--dry-run=yes"], "--dry-run takes no value"),
    ],
)
def test_what_sbatch_would_not_take_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as e:
        parse(arguments)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_dry_run_is_one_even_behind_two_dashes() -> None:
    given = parse(["-N2", "--", "-x", "--dry-run"])
    assert given.dry_run and given.words == ["-x"] and given.lines == ["--nodes=2"]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SBATCH_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "some.sh"
    path.write_text(SCRIPT)
    return path


def test_options_win_over_variables_and_these_over_the_scripts_lines(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned(script, parse([]), ["w"])
    assert (job.allocation, job.notice, job.index) == (Allocation(4, 3, 5, 3), 77, "")
    monkeypatch.setenv("SBATCH_GPUS_PER_NODE", "a100:6")
    monkeypatch.setenv("SBATCH_SIGNAL", "USR1@99")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "5-9")
    job = planned(script, parse(["-N9"]), ["w"])
    assert (job.allocation, job.notice, job.index) == (Allocation(9, 3, 5, 6), 99, "5")
    job = planned(script, parse(["--gpus-per-node=2", "--signal=USR1", "-a", "2,4%1"]), ["w"])
    assert (job.allocation.gpus, job.notice, job.index) == (2, 60, "2")
    assert job.submission[-2:] == ("slurm/some.sh", "w")


@pytest.mark.parametrize(
    ("option", "gpus"),
    [
        ("--gpus-per-node=h100:8", 8),
        ("-G 32", 8),
        ("--gpus-per-task=2", 6),
        ("--gres=gpu:7", 7),
        ("--gres=nic:9,gpu:a100:5", 5),
        ("--gres=gpu", 1),
        ("--gres=gpu:a100", 1),
        ("--gres=nic:9", 3),
    ],
)
def test_gpus_are_asked_for_in_many_ways(script: Path, option: str, gpus: int) -> None:
    assert Allocation.of(asked(script, parse(option.split()))).gpus == gpus


@pytest.mark.parametrize("nodes", ["2-4", "0", "many", "", "-1"])
def test_a_size_that_is_not_one_number_is_refused(script: Path, nodes: str) -> None:
    with pytest.raises(UserError, match=f"--nodes={nodes}: give a single number"):
        planned(script, parse([f"--nodes={nodes}"]), [])
