"""``warmstart compare``: which evaluations it takes, which it refuses, and what it says of a
difference.
"""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.errors import UserError
from common.records import Problem
from eval.generation import rollout_files
from eval.grading.intervals import difference
from eval.results import base_vs_sft
from eval.results.compare import compare
from tests.eval.runs import Answer, empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run.folder import Run

SETS = {"aime2025": 15, "amc2023": 20}


def solves(share: float) -> Answer:
    """Returns answers that solve ``share`` of the problems, each in three of four rollouts."""
    return lambda p, k: p.answer if int(p.answer) % 10 < share * 10 and k != 1 else "x"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return empty_run(tmp_path / "runs" / "mine")


@pytest.fixture
def other(run: Run) -> Run:
    return empty_run(run.root.with_name("other"))


def line(text: str, title: str) -> list[str]:
    found = next(x for x in text.splitlines() if x.startswith(f"| {title} |"))
    return [cell.strip() for cell in found.strip("|").split(" | ")]


def test_a_real_difference_is_told_and_its_figures_are_the_paired_tests(
    run: Run, other: Run
) -> None:
    evaluation(run, "step_7", SETS, solves(0.2))
    evaluation(other, "step_9", SETS, solves(0.7), seed=1, tokenizer="another")
    text = compare(["mine", "other"])
    assert "**other@step_9 is better than mine@step_7**" in text
    change = [(0.75 if 2 <= i % 10 < 7 else 0.0) for count in SETS.values() for i in range(count)]
    found = difference([change[:15], change[15:]])
    cells = line(text, "all")
    interval = f"[{found.lower * 100:+.1f}, {found.upper * 100:+.1f}]"
    assert cells[:3] == ["all", "35", f"{found.mean * 100:+.2f} {interval}"]
    assert cells[3] == "< 0.0001" and cells[5] == "B is better"
    assert line(text, "other@step_9")[3].startswith("55.71 % [")
    assert line(text, "perfect@4, all")[-1] == "not significant"
    assert "tokenizers differ" in text and "the 35 problems that all evaluations have" in text
    assert "**mine@step_7 is worse than other@step_9**" in compare(["other", "mine"])


def test_what_may_be_chance_is_called_so(run: Run) -> None:
    evaluation(run, "base", SETS, solves(0.2))
    evaluation(
        run, "step_7", SETS, lambda p, k: solves(0.2)(p, k) if p.id != "amc2023/5" else p.answer
    )
    text = compare(["mine@base", "runs/mine@7"])
    assert "**mine@step_7 does not differ significantly from mine@base**: pass@1 +2.86 [" in text
    assert {line(text, title)[-1] for title in ("aime2025", "amc2023", "all")} == {
        "not significant"
    }
    assert line(text, "aime2025")[3] == "= 1.0000" and "]†" in line(text, "aime2025")[2]


def test_several_models_are_one_table_each_against_the_first(run: Run) -> None:
    for label, share in (("base", 0.1), ("step_5", 0.4), ("step_9", 0.5)):
        evaluation(run, label, SETS, solves(share))
    text = compare(["mine@base", "mine@5", "mine@step_9"])
    assert text.count("\n## A = mine@base, B = ") == 2
    assert [line(text.split("\n\n")[0], f"mine@{x}")[0] for x in ("base", "step_5", "step_9")]


def test_folders_and_other_numbers_of_rollouts_and_problems(run: Run) -> None:
    many = evaluation(run, "step_7", SETS, solves(0.5))
    few = evaluation(run, "step_7", {"aime2025": 10}, solves(0.5), rollouts=2, limit=10)
    text = compare([str(many), str(few)])
    assert f"Rollouts per problem: {many} 4, {few} 2" in text and "any@" not in text
    assert (
        "the 10 problems that all evaluations have" in text
        and f"25 problems of {many} are left out" in text
    )
    assert "does not differ significantly" in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_tokens": 16_384}, r"the budget \(eval.max_tokens\) 32768 and 16384"),
        ({"temperature": 1.0, "top_p": 1.0}, r"temperature 0.6 and 1.0; top_p 0.95 and 1.0"),
        ({"template": "other"}, "the chat template"),
        (
            {"benchmarks": {"aime2025": "hash of another", "amc2023": "hash of amc2023"}},
            "their files of aime2025 differ",
        ),
        ({"something_new": 1}, "something_new None and 1"),
    ],
)
def test_evaluations_that_were_not_sampled_alike_are_refused(
    run: Run, changed: dict, words: str
) -> None:
    evaluation(run, "base", SETS, solves(0.1))
    evaluation(run, "step_7", SETS, solves(0.1), **changed)
    with pytest.raises(UserError, match=f"cannot be compared.*: {words}.*warmstart eval"):
        compare(["mine@base", "mine@7"])


def test_refusals(run: Run, other: Run) -> None:
    with pytest.raises(UserError, match="at least two"):
        compare(["mine"])
    with pytest.raises(UserError, match="no complete evaluation yet: warmstart eval"):
        compare(["mine", "other"])
    evaluation(run, "step_7", SETS, solves(0.1))
    with pytest.raises(UserError, match="nothing is neither a run"):
        compare(["mine", "nothing"])
    for target, words in (
        ("mine@8", "no complete evaluation of 8"),
        ("mine@last", "mine@STEP with a number, mine@avg-NAME or mine@rl-N"),
    ):
        with pytest.raises(UserError, match=words):
            compare(["mine", target])
    evaluation(other, "base", {"math500": 5}, solves(0.1))
    with pytest.raises(UserError, match="no set in common: aime2025, amc2023 and math500"):
        compare(["mine", "other"])


def test_a_partial_evaluation_is_asked_for_and_named(run: Run) -> None:
    evaluation(run, "base", SETS, solves(0.1))
    folder = evaluation(run, "step_7", SETS, solves(0.9), complete=False)
    path = folder / rollout_files.ROLLOUTS
    path.write_bytes(
        b"".join(path.read_bytes().splitlines(keepends=True)[:122])
    )  # 30 problems and two rollouts
    with pytest.raises(UserError, match="no complete evaluation of 7"):
        compare(["mine@base", "mine@7"])
    targets = ["mine@base", str(folder)]
    with pytest.raises(UserError, match="not a complete evaluation: complete it, or compare with"):
        compare(targets)
    text = compare(targets, partial=True)
    assert "the 31 problems that all evaluations have" in text
    silent = [
        x
        for x in text.splitlines()
        if "mine@step_7" in x and "partial: 18 rollouts missing" not in x
    ]
    assert all(x.startswith(("##", "- Accuracies are over")) for x in silent)
    titles = re.findall(r"^\| (?:aime2025|amc2023|all|any@4, all) [^|]*", text, re.MULTILINE)
    assert len(titles) == 4 and all("(partial: " in title for title in titles)


def test_published_figures_are_met_at_their_budget(run: Run) -> None:
    config = configs.read(run.config).copy()
    OmegaConf.set_readonly(config, False)
    config.reference = OmegaConf.create(
        {
            "source": "them",
            "max_tokens": 16_384,
            "rollouts": 16,
            "pass@1": {"aime2025": {"base": 0.5, "sft": 90}, "amc2023": {"base": 0.5, "sft": 20}},
            "any@4": {"amc2023": {"sft": 30}},
        }
    )
    configs.write(config, run.config)
    evaluation(run, "base", SETS, lambda p, k: None)

    def half(problem: Problem, k: int) -> int:
        return 20_000 if k == 0 else 500

    evaluation(run, "step_7", SETS, solves(0.5), tokens=half)
    text = compare(["mine@base", "mine@7"]).split("## mine@step_7 against published figures")[1]
    assert line(text, "pass@1, aime2025")[1].startswith(
        "33.33 % ["
    )  # two thirds of them, of which two of four in time
    assert line(text, "pass@1, aime2025")[2:] == ["90.00 %", "at most ± 1.94", "outside"]
    assert line(text, "pass@1, amc2023")[2:] == ["20.00 %", "at most ± 2.24", "inside"]
    assert line(text, "any@4, amc2023")[3] == "unknown"


def test_a_problem_that_one_has_no_rollout_of_is_no_problem_of_both(run: Run) -> None:
    def solved(problem: Problem, k: int) -> str:
        return problem.answer

    evaluation(run, "base", {"amc2023": 8}, solved, complete=False)
    folder = evaluation(run, "step_7", {"amc2023": 8}, solved, complete=False)
    path = folder / rollout_files.ROLLOUTS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[16:]))
    text = compare(["mine@base", "mine@7"], partial=True)
    assert "the 4 problems that all evaluations have" in text


def test_greedy_evaluations_have_one_accuracy_with_its_count(run: Run) -> None:
    for label, share in (("base", 0.1), ("step_5", 0.9)):
        evaluation(run, label, {"gsm8k_test": 40}, solves(share), rollouts=1, temperature=0)
    text = compare(["mine@base", "mine@5"])
    assert "@1, all" not in text and line(text, "mine@base")[2:] == ["unknown"]
    assert [line(text, f"mine@{x}")[1].split(" [")[0] for x in ("base", "step_5")] == [
        "4 / 40 = 10.00 %",
        "36 / 40 = 90.00 %",
    ]
    assert base_vs_sft.headline(base_vs_sft.newest(run), None)[1][2].startswith(
        "36 / 40 = 90.00 % ["
    )
    assert line(text, "gsm8k_test")[3:] == ["< 0.0001", "", "B is better"]


def test_lengths_and_device_time_are_ratios_to_the_first(run: Run, other: Run) -> None:
    """Two GPUs for 30 s made 20 rollouts: 3 s each; an evaluation that was continued is timed by
    the rest of it.
    """

    def on(device: str, seconds: float, rollouts: int) -> dict[str, object]:
        return {"device": device, "devices": 2, "wall_seconds": seconds, "timed_rollouts": rollouts}

    sets, greedy = {"gsm8k_test": 20}, {"rollouts": 1, "temperature": 0}
    evaluation(
        run,
        "base",
        sets,
        solves(0.1),
        tokens=lambda p, k: 1_000,
        timed=on("cuda", 30, 20),
        **greedy,
    )
    evaluation(
        run, "step_5", sets, solves(0.1), tokens=lambda p, k: 400, timed=on("cuda", 6, 10), **greedy
    )
    evaluation(run, "step_6", sets, solves(0.1), timed=on("cpu", 6, 20), **greedy)
    evaluation(
        other,
        "step_7",
        sets,
        solves(0.1),
        timed={"device": "cuda", "devices": 0, "wall_seconds": 1},
        **greedy,
    )
    targets = ["mine@base", "mine@5", "mine@6", "other@7"]
    text = compare(targets).split("## Lengths of all rollouts")[1]
    cells = [
        line(text, target.replace("@", "@step_") if "base" not in target else target)
        for target in targets
    ]
    assert [c[1] for c in cells] == ["1,000", "400 (0.40 x)", "1,000 (1.00 x)", "1,000 (1.00 x)"]
    evaluation(
        other, "base", sets, lambda p, k: None, tokens=lambda p, k: 0, max_tokens=0, **greedy
    )
    evaluation(other, "step_8", sets, solves(0.1), max_tokens=0, **greedy)
    assert (
        line(compare(["other@base", "other@8"]).split("## Lengths")[1], "other@step_8")[1]
        == "1,000"
    )
    assert [c[-1] for c in cells] == ["3 s CUDA", "1.2 s CUDA (0.40 x)", "0.6 s CPU", "unknown"]


def test_precisions_are_compared_and_named(run: Run) -> None:
    sets, greedy = {"gsm8k_test": 20}, {"rollouts": 1, "temperature": 0}
    whole, rounded = (
        str(evaluation(run, "step_5", sets, solves(0.5), dtype=dtype, **greedy))
        for dtype in ("auto", "nf4")
    )
    text = compare([whole, rounded])
    assert f"The weights differ in precision (eval.dtype): {whole} auto, {rounded} nf4." in text
    base = str(evaluation(run, "base", sets, solves(0.1), dtype="auto", **greedy))
    assert "The weights" not in compare([base, whole])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "prompt",
            "{problem}\nBox it.",
            r"the prompt \(eval\.prompt; .*none and \"{problem}\\nBox it",
        ),
        ("system", "Be brief.", r"the system turn \(eval\.system; .*none and \"Be brief"),
        ("prefill", "<think>\n", r"the beginning of the answers \(eval\.prefill; "),
    ],
)
def test_other_words_are_compared_only_when_told(
    run: Run, other: Run, key: str, value: str, words: str
) -> None:
    evaluation(run, "step_7", SETS, solves(0.2))
    evaluation(other, "step_9", SETS, solves(0.7), **{key: value})
    with pytest.raises(UserError, match=words):
        compare(["mine", "other"])
    text = compare(["mine", "other"], across_prompts=True)
    assert "The prompts differ, so a difference is not the models' alone:" in text
    assert "- mine@step_7: the bare problem." in text
