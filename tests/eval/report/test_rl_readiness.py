"""RL readiness: the closed formula against enumeration and against the truth, and what the section
advises.
"""

from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest

from common.files import MANIFEST, write_json
from common.records import Grade, Problem, Rollout
from data_prep.benchmarks import sets
from data_prep.tokenizer.prompt import BARE
from eval.evaluate import PROBLEMS
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.generation.settings import SamplingSettings
from eval.grading.metrics import METRICS, summarise, tallies
from eval.report.rl_readiness import enough, informative, readiness, section
from eval.results.base_vs_sft import Comparison
from eval.results.evaluation import Evaluation
from trainer.run.model_label import ModelLabel

BUDGET = 64


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_share_of_mixed_groups_is_that_of_all_groups_there_are(n: int) -> None:
    for right in range(n + 1):
        rollouts = [k < right for k in range(n)]
        for group in range(1, n + 1):
            groups = list(combinations(rollouts, group))
            mixed = sum(any(g) and not all(g) for g in groups)
            assert informative(n, right, group) == pytest.approx(mixed / len(groups))


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_it_is_unbiased(p: float) -> None:
    """Its mean over the binomial distribution is 1 - p^g - (1 - p)^g; that of the plug-in estimate
    is not.
    """
    n, group = 16, 8
    chances = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - p**group - (1 - p) ** group
    assert sum(w * informative(n, c, group) for c, w in enumerate(chances)) == pytest.approx(truth)
    plugged = [1 - (c / n) ** group - (1 - c / n) ** group for c in range(n + 1)]
    assert abs(sum(w * x for w, x in zip(chances, plugged, strict=True)) - truth) > 0.01


def evaluation(
    folder: Path, rows: list[str], label: str = "step_9", n: int | None = None
) -> Evaluation:
    """A string a problem, a letter a rollout: r right, w wrong, b without a box, t truncated; right
    ones are short.
    """
    folder.mkdir()
    states = {"r": "boxed", "w": "boxed", "b": "no_box", "t": "truncated"}
    problems = [Problem(str(i), "?", "1", "s") for i in range(len(rows))]
    rollouts, grades = {}, {}
    for problem, row in zip(problems, rows, strict=True):
        for k, letter in enumerate(row):
            key = ("s", problem.id, k)
            length, finish = (
                (BUDGET, "length") if letter == "t" else (10 if letter == "r" else 30, "stop")
            )
            answer = {"r": "1", "w": "2"}.get(letter)
            text = f"<think>{k}</think>" + (f"\\boxed{{{answer}}}" if answer else "")
            rollouts[key] = Rollout(key, 0, text, length, finish, "e", 0.0)
            grades[key] = Grade(key, states[letter], answer, letter == "r", letter == "r")
    n = n or len(rows[0])
    settings = EvaluationSettings(
        label=ModelLabel.parse(label),
        identity={},
        benchmarks={"s": "hash"},
        template="t",
        tokenizer="k",
        limit=None,
        answer_style="boxed",
        prompt=BARE,
        sampling=SamplingSettings(n, temperature=0.6, top_p=0.95, max_tokens=BUDGET, seed=0),
        dtype="auto",
    )
    write_json(folder / SETTINGS, settings.to_json())
    sets.write_problems(folder / PROBLEMS, problems)
    with (folder / rollout_files.ROLLOUTS).open("w") as f:
        for rollout in rollouts.values():
            rollout_files.append(f, rollout)
    if all(len(row) == n for row in rows):
        rollout_files.write_grades(folder / rollout_files.GRADES, grades.values())
        write_json(folder / METRICS, summarise(problems, rollouts, grades, n, BUDGET))
        write_json(folder / MANIFEST, {})
    return Evaluation(folder, ModelLabel.parse(label), settings)


def test_every_figure(tmp_path: Path) -> None:
    e = evaluation(tmp_path / "e", ["rrrr", "rwww", "wwbt", "rrrw"])
    assert [tally.right for tally in tallies(e.grades.values()).values()] == [4, 1, 0, 3]
    found = readiness(e)
    assert (found["n"], found["group"]) == (4, 4)
    assert (found["all_wrong"], found["mixed"], found["all_right"], found["informative"]) == (
        0.25,
        0.5,
        0.25,
        0.5,
    )
    assert found["pass@k"] == pytest.approx([0.5, 7 / 12 + 1 / 24, 11 / 16, 0.75], abs=0.05)
    assert found["doubling"] == pytest.approx(0.125)
    assert found["answered"] == pytest.approx(14 / 15) and found["stopped"] == pytest.approx(
        15 / 16
    )
    # In steps of four tokens.
    assert (found["enough"], found["budget"]) == (12, BUDGET)


@pytest.mark.parametrize(
    ("by_budget", "wanted"),
    [
        ([[8, 0.1], [16, 0.495], [32, 0.5]], 16),
        ([[8, 0.1], [16, 0.49], [32, 0.5]], 32),
        ([[8, 0.0], [32, 0.0]], 32),
    ],
)
def test_a_budget_that_costs_next_to_no_accuracy(by_budget: list[Any], wanted: int) -> None:
    assert enough({"by_budget": by_budget}) == wanted


ADVICE = {
    "nothing": (["rrwwrwrw", "rwwwwwww", "rrrrrrrw"], "Nothing has to be fixed first"),
    "format": (
        ["rrwbbwrw", "rwwwbwww"],
        "only 81.25 % of the rollouts within the budget stated an answer in the required form",
    ),
    "ending": (
        ["rrwtttrw", "rwwwwwww"],
        "Fix first: 18.75 % of the rollouts hit the budget of 64 tokens",
    ),
    "hard": (["w" * 8] * 9 + ["rwwwwwww"], "too hard: most groups would be all wrong"),
    "easy": (["r" * 8] * 9 + ["rwwwwwww"], "too easy: most groups would be all right"),
    "flat": (["w" * 8, "r" * 8], "there is little for RL to sharpen"),
    "one": (["w", "r"], "too few rollouts per problem for statistics of groups"),
    "cut": (["tttttttt"], "no rollout stated an answer in the required form"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_it_says_what_to_mend_first(name: str, tmp_path: Path) -> None:
    rows, advice = ADVICE[name]
    text = section(Comparison(None, evaluation(tmp_path / "e", rows)))
    assert advice in text
    assert ("Fix first" in text) == (name not in ("nothing", "one"))


def test_base_stands_beside_the_step_and_the_advice_is_on_the_step(tmp_path: Path) -> None:
    base, sft = evaluation(tmp_path / "b", ["wwbb"], "base"), evaluation(tmp_path / "s", ["rrrw"])
    table, heading, reading = section(Comparison(base, sft)).split("\n\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == ["", "base", "step_9"]
    assert ["problems never solved (0/4)", "100.00 %", "0.00 %"] in lines
    assert ["pass@1 → pass@4", "0.00 % → 0.00 %", "75.00 % → 100.00 %"] in lines
    assert {len(line) for line in lines} == {3}
    assert heading == "Starting RL from step_9:" and "Nothing has to be fixed" in reading
    assert "Fix first" in section(Comparison(base, None))


def test_a_partial_view_says_so_in_every_line(tmp_path: Path) -> None:
    e = evaluation(tmp_path / "e", ["rrw", "rwrw"], n=4)
    table, _, reading = section(Comparison(None, e)).split("\n\n")
    assert "step_9 (partial: 1 rollouts missing)" in table.splitlines()[0]
    assert all(line.endswith("(partial: 1 rollouts missing)") for line in reading.splitlines())
    few = evaluation(tmp_path / "f", ["rrw"], n=4)
    assert readiness(few)["informative"] is None and "unknown" in section(Comparison(None, few))
