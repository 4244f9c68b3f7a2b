"""What RL could learn, read back from evaluations of any age."""

from dataclasses import replace
from pathlib import Path

from common.files import read_json, write_json
from common.records import Problem
from eval.generation import rollout_files
from eval.grading.metrics import METRICS
from eval.report import tables
from eval.results import base_vs_sft
from tests.eval.runs import SETS, empty_run, evaluation


def half(problem: Problem, k: int) -> str:
    """In amc2023 each second problem is solved thrice of four times."""
    solves = problem.set == "amc2023" and int(problem.answer) % 2 and k < 3
    return problem.answer if solves else "x"


def test_the_signal_of_older_evaluations_is_read_from_their_grades(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "runs" / "mine")
    folder = evaluation(run, "step_7", SETS, half)
    old = read_json(folder / METRICS)
    assert old["amc2023"]["mixed"] == 0.5 and old["amc2023"]["logged"] == 0
    keys = ("mixed", "teach", "distinct", "surprisal", "logged")
    write_json(
        folder / METRICS,
        {name: {k: v for k, v in of.items() if k not in keys} for name, of in old.items()},
    )
    before = tables.signal(base_vs_sft.newest(run))
    assert "| step_7, amc2023 | 50.00 % [" in before
    path = folder / rollout_files.ROLLOUTS
    made = list(rollout_files.read(path).values())
    with path.open("w") as f:
        for rollout in made:
            logged = rollout.key[2] == 0 and rollout.key[0] == "aime2025"
            rollout_files.append(f, replace(rollout, mean_logprob=-0.25 if logged else None))
    lines = tables.signal(base_vs_sft.newest(run)).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == [
        "0.250 (10 of 40 rollouts) |",
        "not recorded |",
        "0.250 (10 of 88 rollouts) |",
    ]
