"""verl's own code reads what is written for it."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from common.files import write_jsonl
from common.records import Problem, Rollout
from data_prep.output.folder import dataset_folder
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import BARE
from eval.grading.grade import grade
from eval.results import base_vs_sft
from eval.rl.prepare import prepare
from eval.rl.reward import compute_score
from tests.conftest import Line, environment, lines, warmstart
from tests.eval.grading.texts import HOSTILE, TRICKY
from tests.eval.rl.samples import STEP, sample
from trainer.process.gpu_binding import drop_amd
from trainer.recipe import load as configs
from trainer.run.folder import Run

ODD = [
    " Spaces around.\n",
    "A cafe\u0301 in two code points",
    "{{ jinja }} {% if %}",
    "an <image> of \\boxed{}",
    "\t算 2+2",
]


def test_verl_reads_what_is_written(run: Run, tmp_path: Path) -> None:
    """Its main composes and accepts the configuration, its dataset the prompts, its reward manager
    the reward.
    """
    config = configs.read(run.config)
    texts = [*ODD, *(f"Name prime number {i}." for i in range(19))]
    golds = {
        str(i): {"id": str(i), "problem": text, "answer": str(100 + i)}
        for i, text in enumerate(texts)
    }
    write_jsonl(tmp_path / "mine.jsonl", golds.values())
    sample(
        run, prepare(run, config, STEP, file=tmp_path / "mine.jsonl").command, lambda i: 1 + i % 7
    )
    started = prepare(run, config, STEP)
    shown = subprocess.run(
        [*shlex.split(started.command), "--cfg", "job", "--resolve"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    theirs = OmegaConf.create(shown.stdout)

    from verl.trainer.ppo.reward import load_reward_manager
    from verl.trainer.ppo.utils import create_rl_dataset, need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    assert not need_critic(theirs) and not need_reference_policy(theirs)
    validate_config(theirs, use_reference_policy=False, use_critic=False)
    rollout, data = omega_conf_to_dataclass(theirs.actor_rollout_ref.rollout), theirs.data
    model = omega_conf_to_dataclass(theirs.actor_rollout_ref.model)
    assert model.path == str(run.export(STEP).resolve())
    # Right rollouts have 20 tokens, the budget's steps are of 4.
    assert (rollout.n, rollout.temperature, rollout.top_p, rollout.response_length) == (
        8,
        1.0,
        1.0,
        20,
    )
    assert (
        rollout.max_model_len
        == data.max_prompt_length + 20
        <= model.hf_config.max_position_embeddings
    )
    assert data.train_batch_size == theirs.actor_rollout_ref.actor.ppo_mini_batch_size == 24

    words = tokenizers.load(Path(config.verl.model.tokenizer_path))
    build = create_continuous_token_builder(
        model.tokenizer, hf_model_type=model.hf_config.model_type
    )
    held_out = {line["id"]: line for line in lines(dataset_folder(config) / "heldout.jsonl")}
    for files, expected in ((data.train_files, golds), (data.val_files, held_out)):
        rows = create_rl_dataset(files, data, model.tokenizer, model.processor)
        assert {row["extra_info"]["id"] for row in rows} == expected.keys()
        for row in rows:
            problem = expected[row["extra_info"]["id"]]
            prompt = build.build_initial_tokens(list(row["raw_prompt"]))
            assert prompt == chat.encode_prompt(
                words, Problem("", problem["problem"], "", ""), BARE
            )
            assert len(prompt) <= data.max_prompt_length
            assert row["reward_model"] == {"style": "rule", "ground_truth": problem["answer"]}
    manager = load_reward_manager(theirs, model.tokenizer)
    row = rows[0]
    for answer, reward in ((row["reward_model"]["ground_truth"], 1.0), ("-1", 0.0)):
        text = f"<think>\n\\boxed{{-2}}\n</think>\n\nThe answer is \\boxed{{{answer}}}.<|im_end|>"
        result = manager.loop.run_until_complete(
            manager.run_single(rollout_of(row, model.tokenizer, text))
        )
        told = result["reward_extra_info"]
        assert result["reward_score"] == reward == told["acc"] == told["exact"]
        assert (told["truncated"], told["state"]) == (0.0, "boxed")
    for text, length, truncated in (
        ("<think>\n1 + 1", 20, True),
        ("<think>\n1 + 1", 19, False),
        ("<think>\n1<|im_end|>", 20, False),
    ):
        rollout = rollout_of(row, model.tokenizer, text, length)
        told = manager.loop.run_until_complete(manager.run_single(rollout))["reward_extra_info"]
        state = "truncated" if truncated else "no_box"
        assert (told["truncated"], told["state"]) == (truncated, state), text


def rollout_of(row: dict[str, Any], tokenizer: Any, text: str, length: int = 0) -> Any:
    """A rollout as verl hands it to its reward manager; ``length`` repeats its first token."""
    import numpy as np
    import torch
    from verl import DataProto

    tokens = tokenizer.encode(text)
    ids = torch.tensor([tokens[:1] * (length - len(tokens)) + tokens])
    values = {
        key: np.array([row[key]], dtype=object)
        for key in ("data_source", "reward_model", "extra_info")
    }
    return DataProto.from_dict(
        {"responses": ids, "attention_mask": torch.ones_like(ids)}, non_tensors=values
    )


@pytest.mark.slow
def test_a_trained_model_chooses_its_own_problems(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(line.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    run = Run(Path("runs/tiny"))
    config, step = configs.read(run.config), run.exports[-1]
    overrides = ["eval.rollouts=4", "cluster.nodes=1", "cluster.gpus_per_node=1"]
    first = prepare(run, config, step, overrides, count=12)
    warmstart(*shlex.split(first.command)[1:], folder=Path.cwd())
    second = prepare(run, config, step, overrides)
    assert second.folder is not None
    found = [
        row["extra_info"] for row in pq.read_table(second.folder / "train.parquet").to_pylist()
    ]
    # The dataset needed all of its rows.
    assert found and all(
        0 < extra["right"] < extra["rollouts"] == 4 and extra["in_sft"] for extra in found
    )
    # The pool is no benchmark: the report stays with the held-out rows.
    assert base_vs_sft.newest(run).known.settings.benchmarks.keys() == {"heldout"}


@pytest.mark.parametrize(
    ("text", "score", "state"),
    [
        ("<think>a</think>\\boxed{07}", 1, "boxed"),
        ("<think>a</think>\\boxed{8}", 0, "boxed"),
        ("<think>\\boxed{7}</think>seven", 0, "box_in_think_only"),
        ("<think>\\boxed{7}", 0, "box_in_think_only"),
        ("<think>a</think>\\boxed{7", 0, "unclosed_box"),
    ],
)
def test_the_reward_is_the_evaluations_judgement(text: str, score: float, state: str) -> None:
    told = {"score": score, "acc": score, "exact": score, "truncated": 0.0, "state": state}
    assert compute_score("rl_pool", text, "7", {}) == told
    cut = compute_score("rl_pool", text, "7", {"truncated": True})
    assert cut == told | {"truncated": 1.0, "state": state if state == "boxed" else "truncated"}


def judged(text: str, gold: str, finish: str) -> tuple[Any, Any]:
    """What RL's reward says of a rollout."""
    told = compute_score("any", text, gold, {"truncated": finish == "length"})
    return told["state"], bool(told["score"])


@pytest.mark.timeout(300)
def test_reward_and_grade_agree_on_hard_texts() -> None:
    """Whatever graders stumble over, and what is meant to break them."""
    texts = [(text, gold) for text, gold, _ in TRICKY]
    texts += [(f"<think></think>{text}", "7") for text in HOSTILE.values()]
    rollouts = [
        Rollout(("s", str(i), k), 0, text, 1, finish, "engine-0", 0.0)
        for i, (text, _) in enumerate(texts)
        for k, finish in enumerate(("stop", "length"))
    ]
    problems = [Problem(str(i), "?", gold, "s") for i, (_, gold) in enumerate(texts)]
    for r, g in zip(rollouts, grade(rollouts, problems), strict=True):
        gold = problems[int(r.key[1])].answer
        assert judged(r.text, gold, r.finish_reason) == (g.state, g.exact), r.text[:80]


def test_reward_and_grade_agree_on_what_a_model_wrote(line: Line) -> None:
    seen = set()
    for folder in (line.run / "evals").iterdir():
        golds = {p["id"]: p["answer"] for p in lines(folder / "problems.jsonl")}
        rollouts = lines(folder / "rollouts.jsonl")
        grades = {tuple(g["key"]): g for g in lines(folder / "grades.jsonl")}
        for r in rollouts:
            g, (_, problem, _) = grades[tuple(r["key"])], r["key"]
            told = judged(r["text"], golds[problem], r["finish_reason"])
            assert told == (g["state"], g["exact"]), r["text"]
            seen.add(told)
    assert {True, False} <= {right for _, right in seen} and len(seen) > 2


def test_verls_workers_take_slurms_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sets AMD's beside CUDA's, whatever the GPUs are."""
    from verl.single_controller.base import Worker

    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "0,1")
    worker = Worker.__new__(Worker)
    with pytest.raises(ValueError, match="ROCR_VISIBLE_DEVICES"):
        worker._setup_env_cuda_visible_devices()
    drop_amd(os.environ)
    worker._setup_env_cuda_visible_devices()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
