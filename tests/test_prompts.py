"""A model that is trained with an instruction and a system turn is asked in the same words
everywhere: in evaluation, card, RL prompts, and by a server.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data_prep.benchmarks.sets import load_file
from data_prep.output.folder import token_file
from data_prep.tokenizer import token_files
from eval.evaluation_settings import SETTINGS
from eval.rl.prepare import prepare
from tests.conftest import environment, lines, warmstart
from tests.eval.rl.samples import sample
from trainer.recipe import load as configs
from trainer.run.folder import Run

INSTRUCTION = "{problem}\nGive the sum in \\boxed{}."
SYSTEM = 'You add "numbers".\nNothing else.'
WORDS = [
    f"data.prompt={INSTRUCTION}",
    f"data.system={SYSTEM}",
    "data.arithmetic.problems=600",
    "data.spare_share=0",
    "train.max_steps=2",
    "eval.rollouts=2",
    "eval.max_tokens=16",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructed")
    warmstart("run", "tiny", *WORDS, folder=folder)
    return folder


@pytest.fixture(scope="module")
def export(folder: Path) -> Path:
    return folder / "runs/tiny/export/step_2"


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, list[int]]:
    """Problem -> the tokens before its answer in the held-out rows, as training has them."""
    table = token_files.read(token_file(folder / "data/tiny", "test"))
    rows = {row["id"]: row for row in table.to_pylist()}
    problems = load_file(folder / "data/tiny/heldout.jsonl", "heldout")
    return {p.problem: rows[p.id]["input_ids"][: rows[p.id]["prompt_len"]] for p in problems}


def user(problem: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": INSTRUCTION.replace("{problem}", problem)}]


def test_training_saw_the_instruction(trained: dict[str, list[int]], export: Path) -> None:
    words = AutoTokenizer.from_pretrained(export)
    for problem, ids in trained.items():
        assert words.decode(ids) == (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{problem}\nGive the sum in "
            "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
        )
        asked = words.apply_chat_template(user(problem), add_generation_prompt=True)
        assert asked["input_ids"] == ids


def test_the_evaluation_and_the_card_say_it(folder: Path, export: Path) -> None:
    for evaluation in (folder / "runs/tiny/evals").iterdir():
        settings = json.loads((evaluation / SETTINGS).read_text())
        assert (settings["prompt"], settings["system"]) == (INSTRUCTION, SYSTEM)
    card = (export / "README.md").read_text()
    assert "\\nGive the sum in \\\\boxed{}." in card
    assert json.dumps(SYSTEM) in card
    report = (folder / "runs/tiny/report.md").read_text()
    assert f"asked as `{json.dumps(INSTRUCTION)}`; system turn `{json.dumps(SYSTEM)}`" in report


def test_rls_prompts_are_those_of_training(folder: Path, export: Path, trained: Any) -> None:
    run = Run(folder / "runs/tiny")
    here = Path.cwd()
    os.chdir(folder)
    try:
        config = configs.read(run.config)
        started = prepare(run, config, 2)
        sample(run, started.command, lambda i: 1 + i % 7)
        target = prepare(run, config, 2).folder
    finally:
        os.chdir(here)
    assert target is not None
    words = AutoTokenizer.from_pretrained(export)
    rows = pq.read_table(folder / target / "validation.parquet").to_pylist()
    assert len(rows) == len(trained)
    asked = [
        words.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        for row in rows
    ]
    assert asked == list(trained.values())


def test_a_chat_server_asks_in_the_same_words(export: Path, trained: dict[str, list[int]]) -> None:
    """vLLM's own server tells the tokens of a conversation."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(export)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "256"]
    log = export.parent / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, *options, "--dtype", "float32", "--enforce-eager"],
            env=environment() | {"VLLM_CPU_KVCACHE_SPACE": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        for problem, ids in list(trained.items())[:5]:
            body = {"model": str(export), "messages": user(problem)}
            assert post(f"http://127.0.0.1:{port}/tokenize", body, server, log)["tokens"] == ids
    finally:
        server.terminate()
        server.wait(120)


def post(url: str, body: dict[str, Any], server: subprocess.Popen[bytes], log: Path) -> Any:
    """Posts once the server listens, which takes minutes on a busy machine."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for _ in range(1_800):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.URLError as e:
            if isinstance(e, urllib.error.HTTPError):
                raise AssertionError(e.read()) from e
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_other_words_are_not_compared_silently(folder: Path) -> None:
    bare = ["eval.prompt={problem}", "eval.system="]
    warmstart("eval", "runs/tiny", "2", *bare, folder=folder)
    evaluations = {
        "prompt" in json.loads((path / SETTINGS).read_text()): str(path)
        for path in (folder / "runs/tiny/evals").glob("heldout@step_2-*")
    }
    two = [evaluations[True], evaluations[False]]
    refused = warmstart("compare", *two, folder=folder, check=False)
    assert refused.returncode == 2
    assert "the prompt (eval.prompt; --across-prompts compares them all the same) " in (
        refused.stderr
    )
    told = warmstart("compare", *two, "--across-prompts", folder=folder).stdout
    assert "The prompts differ, so a difference is not the models' alone:" in told
    assert lines(Path(two[0]) / "rollouts.jsonl")
