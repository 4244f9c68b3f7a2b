"""A dataset from conversations of several turns, asked in the recipe's words."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from common.files import read_json
from data_prep.benchmarks.sets import load_file
from data_prep.build import HERE, build
from data_prep.output.folder import token_file
from data_prep.source.source import Source
from data_prep.tokenizer import chat, token_files, tokenizers
from data_prep.tokenizer.prompt import Prompt
from tests.data_prep.openr1 import thought, trace
from tests.data_prep.planted import SETTINGS

LEAK = "How many ways can 9 green frogs queue at the well if two of them refuse to stand together?"
QUESTION = "And how many stay in the shed if each crate goes to another pier before noon?"


def conversations() -> list[dict[str, Any]]:
    draw = random.Random(1)

    def one(first: str, question: str) -> dict[str, Any]:
        answer = trace(str(draw.randint(2, 99)), thought(draw, 60))
        turns = [("user", first), ("assistant", "7"), ("user", question), ("assistant", answer)]
        return {"m": [{"role": role, "content": text} for role, text in turns]}

    many = [one(thought(draw, 12), thought(draw, 15)) for _ in range(60)]
    same = [one(f"Pier {i}: {thought(draw, 30)}", QUESTION) for i in range(3)]
    return [*many, *same, one(LEAK, "And if three of them refuse?")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in conversations()))
    (folder / "frogs.jsonl").write_text(json.dumps({"id": "1", "problem": LEAK, "answer": "3"}))
    settings = replace(
        SETTINGS,
        source=Source(str(source)),
        rows=replace(
            SETTINGS.rows,
            columns={"messages": "m"},
            question_types=None,
            prompt="{problem}\nBox it.",
            system="Be brief.",
        ),
        benchmarks=folder,
        decontaminate=("frogs",),
        test_rows=8,
    )
    build(folder / "data", settings, HERE)
    return folder / "data"


def test_a_leak_in_an_earlier_turn_is_found(built: Path) -> None:
    (found,) = read_json(built / "manifest.json")["contaminated"].values()
    assert found["set"] == "frogs"


def test_one_question_after_different_turns_is_no_duplicate(built: Path) -> None:
    rows = pq.read_table(built / "rows.parquet").to_pylist()
    assert sum(row["problem"] == QUESTION for row in rows) == 3
    assert len(rows) == 63


def test_held_out_problems_are_asked_as_their_rows_are(built: Path) -> None:
    prompt = Prompt("{problem}\nBox it.", "Be brief.")
    encoder = tokenizers.load(built / "tokenizer")
    rows = {r["id"]: r for r in token_files.read(token_file(built, "test")).to_pylist()}
    problems = load_file(built / "heldout.jsonl", "heldout")
    assert len(problems) == 8
    for problem in problems:
        row = rows[problem.id]
        assert chat.encode_prompt(encoder, problem, prompt) == row["input_ids"][: row["prompt_len"]]
        text = chat.render_prompt(problem, prompt)
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
        assert text.count("<|im_start|>user") == 2 and text.count("Box it.") == 1
