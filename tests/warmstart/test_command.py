"""The command: fast help, exit codes, errors that name their cure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from tests.conftest import environment, warmstart
from tests.eval.runs import empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run import frozen_config
from warmstart import cli, commands

VERBS = (
    "data",
    "inspect",
    "doctor",
    "prefetch",
    "plan",
    "train",
    "export",
    "eval",
    "grade",
    "report",
    "compare",
    "choose",
    "rl",
    "status",
    "watch",
    "run",
)


def test_help_comes_at_once_and_lists_the_verbs() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "warmstart", "--help"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    assert all(f"\n    {verb} " in done.stdout for verb in VERBS)
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "warmstart" in loaded and not loaded & {
        "torch",
        "ray",
        "verl",
        "vllm",
        "transformers",
        "omegaconf",
        "trainer",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "tinny"], "did you mean tiny?"),
        (["train", "tiny", "train.lrr=1"], "did you mean train.lr?"),
        (["train", "tiny"], "warmstart data tiny"),
        (["inspect", "tiny"], "warmstart data tiny builds it"),
        (["export", "nothing"], "no run at nothing"),
        (["report", "nothing"], "no run at nothing"),
        (["status", "nothing"], "no run at nothing"),
        (["rl", "nothing"], "no run at nothing"),
        (["compare", "nothing", "more"], "nothing is neither a run"),
        (["grade", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["data", "gsm8k_smoke"], "data.source is not set"),
        (["data", "gsm8k_smoke", "data.source=none.jsonl"], "none.jsonl matches no file"),
        (["eval", ".", "run.name=some"], ". is not a model: the folder has no config.json"),
        (["data", "tiny", "data.dir=/dev/null"], "/dev/null: Not a directory: a file stands"),
        (["data", "tiny", "data.dir=/dev/null/data"], "/dev/null/data: Not a directory: a file"),
    ],
)
def test_a_users_error_is_named_and_exits_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = warmstart(*words, folder=tmp_path, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "rl tiny 7 --pool a=b.jsonl --problems 9 eval.seed=1 run.name=x=y",
        "rl --problems=9 tiny eval.seed=1 7 run.name=x=y --pool a=b.jsonl",
        "rl eval.seed=1 --pool a=b.jsonl tiny --problems 9 run.name=x=y 7",
    ],
)
def test_options_and_overrides_come_in_any_order(words: str) -> None:
    function, given = cli._parse(words.split())
    assert function is commands.rl
    assert given == {
        "run": "tiny",
        "label": "7",
        "pool": "a=b.jsonl",
        "problems": 9,
        "overrides": ["eval.seed=1", "run.name=x=y"],
    }


def test_a_verb_without_overrides_takes_names_with_an_equals_sign() -> None:
    assert cli._parse(["status", "lr=3"])[1]["run"] == "lr=3"


@pytest.mark.parametrize("words", ["rl", "rl eval.seed=1", "train --nothing", "", "nothing"])
def test_what_is_missing_or_unknown_is_a_usage_error(words: str) -> None:
    with pytest.raises(UserError, match=r"--help"):
        cli._parse(words.split())
    assert cli.main(words.split()) == 2


def test_a_run_that_cannot_be_started_there_is_a_users_error() -> None:
    with pytest.raises(UserError, match=r"^/dev/null/tiny: Not a directory: a file stands where"):
        frozen_config.start(configs.load("tiny", ["run.root=/dev/null"]))


def test_inspect_shows_where_the_loss_is(tmp_path: Path) -> None:
    small = ["data.arithmetic.problems=100", "data.spare_share=0"]
    warmstart("data", "tiny", *small, folder=tmp_path)
    shown = warmstart("inspect", "tiny", *small, "--row", "3", folder=tmp_path).stdout
    prompt, answer = shown.split("--- loss ---\n")
    assert prompt.endswith("<|im_start|>assistant\n\n")
    assert answer.startswith("<think>\n") and answer.endswith("<|im_end|>\n--- end ---\n")
    done = warmstart("inspect", "tiny", *small, "--row", "999", folder=tmp_path, check=False)
    assert done.returncode == 2 and "there is no row 999" in done.stderr


def test_grade_file_judges_any_texts(tmp_path: Path) -> None:
    texts = [
        {"id": "right", "gold": "1625", "text": "<think>a</think> \\boxed{1{,}625}"},
        {"id": "inside", "gold": "7", "text": "<think>\\boxed{7}</think> seven"},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    warmstart("grade", "answers.jsonl", folder=tmp_path)
    grades = [json.loads(x) for x in (tmp_path / "answers.grades.jsonl").read_text().splitlines()]
    assert [(g["id"], g["state"], g["exact"]) for g in grades] == [
        ("right", "boxed", True),
        ("inside", "box_in_think_only", False),
    ]
    warmstart("grade", "answers.jsonl", "--style", "answer_is", folder=tmp_path)
    grades = [json.loads(x) for x in (tmp_path / "answers.grades.jsonl").read_text().splitlines()]
    assert [g["state"] for g in grades] == ["last_number", "no_number"]
    done = warmstart("grade", ".", "--style", "answer_is", folder=tmp_path, check=False)
    assert done.returncode == 2 and "leave out --style answer_is" in done.stderr


PLANTED = """
import sys
from {module} import {owner}
def planted(*_):
    {bug}
{owner}.{name} = planted
from warmstart.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize(
    ("words", "place", "bug", "said"),
    [
        (
            ["plan", "tiny"],
            "trainer.recipe load load",
            "raise ValueError('planted')",
            "ValueError: planted",
        ),
        (
            ["report", "run"],
            "eval.report tables by_budget",
            "return {}['planted']",
            "KeyError: 'planted'",
        ),
    ],
)
def test_a_bug_keeps_its_traceback(
    words: list[str], place: str, bug: str, said: str, tmp_path: Path
) -> None:
    evaluation(empty_run(tmp_path / "run"), "base", {"amc2023": 3}, lambda problem, k: "1")
    module, owner, name = place.split()
    code = PLANTED.format(module=module, owner=owner, name=name, bug=bug, words=words)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr and said in done.stderr
