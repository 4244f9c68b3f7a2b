"""Evaluations read back and set beside each other: report tables, partial views, what hostile text
cannot do.
"""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import MANIFEST
from common.records import Grade, Problem
from eval import evaluate
from eval.evaluation_settings import SETTINGS
from eval.generation import rollout_files
from eval.grading.metrics import METRICS, TOTAL
from eval.report import report, tables
from eval.results import base_vs_sft
from eval.results.evaluation import RL_POOL
from tests.eval.runs import SETS, empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return empty_run(tmp_path / "runs" / "mine")


def base(problem: Problem, k: int) -> str | None:
    return None if k == 3 else "x"


def sft(problem: Problem, k: int) -> str | None:
    """In amc2023 each second problem is solved thrice of four times."""
    return (
        problem.answer
        if problem.set == "amc2023" and int(problem.answer) % 2 and k < 3
        else base(problem, k)
    )


def test_every_section_has_the_figures_of_its_evaluations(run: Run) -> None:
    evaluation(run, "base", SETS, base)
    folder = evaluation(run, "step_7", SETS, sft)
    found = report.write(run, configs.read(run.config)).read_text()
    assert "| amc2023 (12 problems) | 0.00 % [0.0, 26.5]† | 37.50 % [" in found
    curve = r"\| step_7, amc2023 \| 37\.50 % \[.*\| 50\.00 % \[.*\| 50\.00 % \["
    assert re.search(curve, found.split("## pass@k")[1])
    # The wrong rollouts of amc2023 say x or nothing, and half of its problems are solved too.
    signal = found.split("## Signal for RL")[1]
    line = (
        r"\| step_7, amc2023 \| 50\.00 % \[\d.* \| 0\.125 \[0\.\d.* \| 1\.00 \[0\.\d\d, 1\.\d\d\]"
        r".* \| not recorded \|"
    )
    assert re.search(line, signal)
    assert re.search(r"\| base, all \| 0\.00 % .* \| 0\.000 \[0\.000, .* \| 1\.00 \[", signal)
    assert (
        "| step_7, all | 20.45 | 27.27 | 0.00 | 27.27 | ± 2.78 |" in found.split("## Averages")[1]
    )
    assert "| step_7, mean of sets | 18.75 | 25.00 | 0.00 | 25.00 |" in found
    assert (
        "| step_7, all | 75.00 | 25.00 | 25.00 | 27.27 | 0.00 | 0.00 | 44 |"
        in found.split("## Outcomes")[1]
    )
    assert (
        "step_7: the graders disagree on 0 of 88 rollouts; 0 of these are right by math-verify only"
        in found
    )
    assert "partial" not in found
    grades = rollout_files.read_grades(folder / rollout_files.GRADES)
    hostile = Grade(
        ("amc2023", "amc2023/0", 0), "boxed", "a | b `c`\n<img src=x> " + "9" * 100, False, True
    )
    rollout_files.write_grades(
        folder / rollout_files.GRADES, (grades | {hostile.key: hostile}).values()
    )
    (table,) = tables.disagreements(base_vs_sft.newest(run))
    (line,) = [x for x in table.splitlines() if "amc2023/0" in x]
    assert (
        line.startswith("| `amc2023/amc2023/0/0` | wrong | right | `a \\| b 'c' <img src=x> 9")
        and len(line) < 150
    )


def test_identical_rollouts_raise_an_alarm_where_they_are_long_and_sampled(run: Run) -> None:
    evaluation(run, "base", SETS, lambda p, k: "x")
    compared = base_vs_sft.newest(run)
    assert ["66 rollouts of base" in line for line in tables.alarms(compared)] == [True]
    greedy, short = (empty_run(run.root.with_name(name)) for name in ("greedy", "short"))
    evaluation(greedy, "base", SETS, lambda p, k: "x", temperature=0)
    evaluation(short, "base", SETS, lambda p, k: "x", tokens=lambda p, k: 100)
    assert (
        tables.alarms(base_vs_sft.newest(greedy)) == tables.alarms(base_vs_sft.newest(short)) == []
    )


def test_the_base_model_alone_is_a_comparison(run: Run) -> None:
    evaluation(run, "base", {"amc2023": 12}, base)
    lines = base_vs_sft.headline(base_vs_sft.newest(run), None)
    assert lines[0] == ["pass@1", "base", "SFT", "improvement"]
    assert lines[1] == ["amc2023 (12 problems)", "0.00 % [0.0, 26.5]†", "not evaluated", ""]


def test_published_figures_stand_only_beside_the_same_problems(run: Run) -> None:
    reference = {
        "source": "them",
        "max_tokens": 16_384,
        "pass@1": {"amc2023": {"base": 1.0, "sft": 2.0}},
    }

    def late(problem: Problem, k: int) -> int:
        return 16_384 + k

    evaluation(run, "base", {"amc2023": 12}, base)
    evaluation(run, "step_7", {"amc2023": 12}, sft, tokens=late)
    titles, line, *_ = base_vs_sft.headline(base_vs_sft.newest(run), reference)
    assert titles[4:] == ["at 16,384 tokens", "published base", "published SFT"]
    assert line[4:] == ["0.00 % → 12.50 %", "1.00 %", "2.00 %"]
    assert "| step_7, amc2023 |" in tables.by_budget(base_vs_sft.newest(run), reference)
    assert (
        tables.by_budget(base_vs_sft.newest(run), reference)
        .splitlines()[-1]
        .endswith("| 37.50 | 2.00 |")
    )
    evaluation(run, "step_8", {"amc2023": 12}, sft, limit=12)
    assert base_vs_sft.headline(base_vs_sft.newest(run), reference)[0][3:] == ["improvement"]


def test_a_partial_view_is_asked_for_and_says_so_in_every_line(run: Run) -> None:
    evaluation(run, "base", SETS, base)
    folder = evaluation(run, "step_7", SETS, sft, complete=False)
    ledgers = folder / rollout_files.ROLLOUTS
    lines = ledgers.read_bytes().splitlines(keepends=True)
    before = b"".join(lines[:50]) + lines[50][:30]  # in the middle of amc2023, a line torn
    ledgers.write_bytes(before)
    assert base_vs_sft.newest(run).sft is None
    compared = base_vs_sft.newest(run, partial=True)
    assert compared.sft is not None and compared.sft.figures[TOTAL]["missing"] == 38
    assert (
        compared.sft.figures["amc2023"]["problems"] == 3
        and "missing" not in compared.base.figures[TOTAL]
    )
    found = report.write(run, configs.read(run.config), partial=True).read_text()
    told = [
        line
        for line in found.splitlines()
        if "step_7" in line and not line.startswith(("| pass@1", "| |"))
    ]
    assert len(told) > 15
    silent = [line for line in told if "partial: " not in line]
    assert [
        line for line in silent if not line.startswith(("| evaluation of", "Starting RL from"))
    ] == []
    assert (
        "| amc2023 (3 problems) (partial: 38 rollouts missing) | 0.00 % [0.0, 26.5]† | 25.00 % ["
        in found
    )
    assert "| aime2025 (10 problems) (partial: 0 rollouts missing) |" in found
    assert ledgers.read_bytes() == before and not (folder / rollout_files.GRADES).exists()


def test_nothing_complete_is_refused_with_what_there_is(run: Run) -> None:
    with pytest.raises(UserError, match="no complete evaluation yet: warmstart eval"):
        base_vs_sft.newest(run)
    folder = evaluation(run, "base", SETS, base, complete=False)
    with pytest.raises(
        UserError, match=rf"not finished: {re.escape(folder.name)}; --partial shows"
    ):
        base_vs_sft.newest(run)
    (folder / rollout_files.ROLLOUTS).write_text('{"key": ["torn')
    with pytest.raises(UserError, match="no complete evaluation yet"):
        base_vs_sft.newest(run, partial=True)


def test_a_shorter_budget_takes_the_answers_of_longer_rollouts_away(run: Run) -> None:
    evaluation(run, "base", {"a": 4}, lambda p, k: p.answer, tokens=lambda p, k: 100 * (k + 1))
    known = base_vs_sft.newest(run).known
    assert {*known.values_within(250)["pass@1"].values()} == {0.5}
    assert (
        {*known.values_within(250)["maj@4"].values()}
        == {1.0}
        == {*known.values["perfect@4"].values()}
    )
    assert {*known.values_within(99)["maj@4"].values()} == {0.0}
    wrong_first = {
        key: replace(g, extracted="x", exact=False) for key, g in known.grades.items() if key[2] < 2
    }
    known.grades.update(wrong_first)
    assert {*known.values_within(250)["maj@4"].values()} == {0.0}


@pytest.mark.parametrize("later", [9, -9])
def test_a_step_that_was_exported_twice_has_its_newer_evaluation(run: Run, later: float) -> None:
    """Whatever the hashes in the folders' names are."""
    one = evaluation(run, "step_7", {"a": 4}, base)
    other = shutil.copytree(one, one.with_name(f"{one.name}0"))
    moment = (one / MANIFEST).stat().st_mtime + later
    os.utime(other / MANIFEST, (moment, moment))
    assert base_vs_sft.newest(run).known.folder == (other if later > 0 else one)


def test_what_else_was_evaluated_of_the_step_is_there(run: Run) -> None:
    for label, answer in (("base", base), ("step_7", sft)):
        evaluation(run, label, {"aime2025": 10}, answer)
    other = evaluation(run, "step_7", {"amc2023": 12}, sft)
    os.utime(other / MANIFEST, (2e9, 2e9))
    assert base_vs_sft.newest(run).known.folder == other
    found = report.write(run, configs.read(run.config)).read_text()
    first, also = found.split("## Also evaluated: aime2025")
    assert (
        "| aime2025 (10 problems) | 0.00 % [" in also
        and "aime2025 (10" not in first
        and "amc2023 (12" in first
    )


def test_a_steps_newest_evaluation_comes_first(run: Run) -> None:
    """However new the evaluations of later steps under the same settings are."""
    old, new = (evaluation(run, "step_7", {name: 4}, base) for name in ("a", "b"))
    later = evaluation(run, "step_9", {"a": 4}, base)
    for age, folder in enumerate((new, old)):
        os.utime(folder / MANIFEST, (1e9 - age, 1e9 - age))
    os.utime(later / MANIFEST, (2e9, 2e9))
    assert [c.known.folder for c in base_vs_sft.of_model(run, ModelLabel(7))] == [new, old]


@pytest.mark.parametrize("budget", [32_768, 20_480, 40_000, 8_192])
def test_the_whole_budget_is_the_last_column(run: Run, budget: int) -> None:
    evaluation(
        run,
        "base",
        {"a": 4},
        lambda p, k: p.answer,
        tokens=lambda p, k: budget - 1,
        max_tokens=budget,
    )
    titles, _, line = tables.by_budget(base_vs_sft.newest(run), None).splitlines()
    assert titles.endswith(f" {budget:,} |") and line.endswith(" 100.00 |")
    assert (" 16,384 |" in titles) == (budget > 16_384)


@pytest.mark.parametrize("lost", [3, 88])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (rollout_files.ROLLOUTS, "delete .*manifest.json and run the same warmstart eval again"),
        (rollout_files.GRADES, "warmstart grade .* writes it again"),
    ],
)
def test_a_damaged_evaluation_is_named_with_its_remedy(
    run: Run, name: str, remedy: str, lost: int
) -> None:
    path = evaluation(run, "base", SETS, base) / name
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lost]))
    with pytest.raises(
        UserError, match=rf"{name} is damaged \({88 - lost} of 88 rollouts\): {remedy}"
    ):
        report.write(run, configs.read(run.config))


def test_figures_that_are_gone_are_named_with_their_remedy(run: Run) -> None:
    folder = evaluation(run, "base", SETS, base)
    (folder / METRICS).unlink()
    with pytest.raises(UserError, match=rf"no {METRICS}\): warmstart grade .* writes it again"):
        report.write(run, configs.read(run.config))
    evaluate.regrade(folder)
    assert report.write(run, configs.read(run.config)).exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": "base"}'])
def test_settings_that_are_none_are_named(run: Run, content: str) -> None:
    folder = evaluation(run, "base", SETS, base)
    (folder / SETTINGS).write_text(content)
    for act in (lambda: base_vs_sft.newest(run), lambda: evaluate.regrade(folder)):
        with pytest.raises(UserError, match=rf"{SETTINGS} does not hold an evaluation's settings"):
            act()


def test_a_finished_evaluation_of_the_pool_is_not_called_unfinished(run: Run) -> None:
    evaluation(run, "step_7", {RL_POOL: 4}, base)
    with pytest.raises(UserError, match="has no complete evaluation yet: warmstart eval"):
        base_vs_sft.newest(run)


def test_what_does_not_print_is_shown_as_such(run: Run) -> None:
    folder = evaluation(run, "base", SETS, base)
    grades = rollout_files.read_grades(folder / rollout_files.GRADES)
    hostile = Grade(("amc2023", "amc2023/0", 0), "boxed", "5\ud800\0\x1b[2J\u202e", False, True)
    rollout_files.write_grades(
        folder / rollout_files.GRADES, (grades | {hostile.key: hostile}).values()
    )
    found = report.write(run, configs.read(run.config)).read_text()
    assert "| `5\ufffd\ufffd\ufffd[2J\ufffd` |" in found
