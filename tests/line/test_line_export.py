"""The export of a whole line: its files, its weights, and what transformers and vLLM make of it."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from common.records import Problem
from data_prep.benchmarks.sets import load_file
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import BARE
from tests.conftest import ROOT, Line, environment, lines
from tests.line.greedy import TOKENS


def test_the_export_is_a_hugging_face_folder_that_ends_where_training_ended(line: Line) -> None:
    export = line.export()
    assert {p.suffix for p in export.iterdir()} == {
        ".json",
        ".jinja",
        ".safetensors",
        ".md",
        ".png",
    }
    exported = tokenizers.load(export)
    ends = tokenizers.end_tokens(exported)
    assert json.loads((export / "generation_config.json").read_text())["eos_token_id"] == ends
    assert exported.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]
    problem = lines(line.data / "heldout.jsonl")[0]["problem"]
    messages = [{"role": "user", "content": problem}]
    prompt = exported.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert prompt == chat.encode_prompt(
        tokenizers.load(line.data / "tokenizer"), Problem("", problem, "", ""), BARE
    )


def test_the_export_is_the_checkpoint_rounded_to_bf16(line: Line) -> None:
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    exported = load_file(line.export() / "model.safetensors")
    shards = str(line.run / "checkpoints" / line.export().name)
    state = {name: torch.empty(t.shape, dtype=torch.float32) for name, t in exported.items()}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(shards), no_dist=True)
    assert "lm_head.weight" not in exported
    assert all(torch.equal(state[name].bfloat16(), tensor) for name, tensor in exported.items())


def test_the_example_in_the_card_runs_as_it_is(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    program = re.findall(
        r"```python\n(.*?)```", (line.export() / "README.md").read_text(), re.DOTALL
    )[0]
    exec(program.replace("path/to/this/folder", str(line.export())), {})
    assert re.search(
        r"<think>.*</think>.*\\boxed\{\d+\}.*<\|im_end\|>", capsys.readouterr().out, re.DOTALL
    )


@pytest.fixture(scope="session")
def prompts(line: Line) -> list[list[int]]:
    tokenizer = tokenizers.load(line.export())
    return [
        chat.encode_prompt(tokenizer, p, BARE)
        for p in load_file(line.data / "heldout.jsonl", "heldout")[:8]
    ]


@pytest.fixture(scope="session")
def greedy(line: Line, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """The one vLLM engine of the tests, serving the export in float32."""
    command = [sys.executable, "-m", "tests.line.greedy", str(line.export())]
    done = subprocess.run(
        command,
        input=json.dumps(prompts),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_vllm_stops_at_the_end_of_the_turn(line: Line, greedy: list[dict[str, Any]]) -> None:
    end = tokenizers.end_tokens(tokenizers.load(line.export()))[0]
    assert [g["finish_reason"] for g in greedy] == ["stop"] * 8
    assert all(g["ended"][-1] == end and end not in g["ended"][:-1] for g in greedy)


def test_vllm_and_transformers_agree_on_every_greedy_token(
    line: Line, prompts: list[list[int]], greedy: list[dict[str, Any]]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(line.export(), dtype=torch.float32)
    for ids, ours in zip(prompts, greedy, strict=True):
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            eos_token_id=-1,
        )
        assert ours["free"] == out[0, len(ids) :].tolist()
        assert len(ours["free"]) == TOKENS
