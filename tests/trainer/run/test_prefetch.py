"""Prefetch and the checks of what it fetched, against a hub on the loopback; then without any
hub.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from common.files import read_json
from data_prep.synth import prompts
from tests.conftest import environment
from tests.hub import COMMIT, serving, warm

RECIPE = [
    "model.path=someone/base",
    "data.source=someone/rows",
    "data.hub_config=null",
    "data.decontaminate=[]",
    "eval.sets=[aime2025,gsm8k_test]",
    "eval.benchmarks=benchmarks",
]
PINS = [f"model.revision={COMMIT}", f"data.revision={COMMIT}"]
CONFIG = {
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "head_dim": 8,
    "num_key_value_heads": 1,
    "vocab_size": 16,
    "tie_word_embeddings": True,
}

THERE = {
    "models/someone/base": {"config.json": json.dumps(CONFIG).encode()},
    "datasets/someone/rows": {},
}
"""Model and dataset, as far as the hub is asked for them before the downloads."""


def parquet(folder: Path) -> bytes:
    pq.write_table(pa.table({"problem": ["1 + 1"], "answer": ["2"]}), folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


def problems(count: int, key: str = "problem", **more: str) -> bytes:
    rows = ({"id": str(i), key: f"What is {i}?", "answer": str(i)} | more for i in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def gsm8k(**splits: bytes) -> dict[str, bytes]:
    """The repository's files, of the given splits."""
    listed = "".join(f"  - split: {name}\n    path: {name}.jsonl\n" for name in splits)
    card = f"---\nconfigs:\n- config_name: main\n  data_files:\n{listed}---\n".encode()
    return {"README.md": card} | {f"{name}.jsonl": content for name, content in splits.items()}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which all was prefetched, and what the command said; the hub is gone."""
    folder = tmp_path_factory.mktemp("prefetch")
    weights = save({"w": np.zeros(4, np.float32)})
    repositories = {
        "models/someone/base": {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": weights,
            "tokenizer.json": b"{}",
            "pytorch_model.bin": b"pickle",
        },
        "datasets/someone/rows": {"data/train-00000-of-00001.parquet": parquet(folder)},
        "datasets/math-ai/aime25": {"test.jsonl": problems(30)},
        "datasets/openai/gsm8k": gsm8k(test=problems(1319, "question", answer="So\n#### 1,072")),
    }
    with serving(repositories) as hub:
        done = warm(folder, hub.url, "prefetch", "sft_4b", *RECIPE)
        assert done.returncode == 0, (done.stderr, hub.requests)
    return folder, done.stdout


def doctor(folder: Path, *words: str) -> dict[str, dict[str, str]]:
    """Findings by what they are about; the dataset is not built here, so that the exit code is
    3.
    """
    done = warm(
        folder,
        "http://127.0.0.1:9",
        "doctor",
        "sft_4b",
        *RECIPE,
        *words,
        "--json",
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 3, done.stderr
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


def test_everything_is_at_one_commit_which_is_said_and_kept(fetched: tuple[Path, str]) -> None:
    folder, said = fetched
    assert " ".join(PINS) in said
    kept = read_json(folder / "data" / "sft_4b.prefetch.json")
    assert (
        kept["model.revision"] == kept["data.revision"] == kept["benchmarks"]["aime2025"] == COMMIT
    )
    assert not list(folder.rglob("pytorch_model.bin"))
    rows = [
        json.loads(line)
        for line in (folder / "benchmarks" / "gsm8k_test.jsonl").read_text().splitlines()
    ]
    assert (rows[0]["id"], rows[0]["problem"], rows[0]["answer"]) == (
        "gsm8k_test-0",
        "What is 0?",
        "1072",
    )


def test_without_the_hub_model_source_and_benchmarks_are_there(fetched: tuple[Path, str]) -> None:
    folder, _ = fetched
    found = doctor(folder, *PINS)
    assert (found["model"]["level"], found["benchmarks"]["level"]) == ("ok", "ok")
    assert f"commit {COMMIT}" in found["model"]["cause"]
    code = (
        "from data_prep.source.hub import download; "
        f"print(*download('someone/rows', None, 'train', {COMMIT!r})[0])"
    )
    environ = environment() | {
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert Path(done.stdout.strip()).read_bytes() == (folder / "rows.parquet").read_bytes(), (
        done.stderr
    )
    unpinned = doctor(folder)["model"]
    assert (unpinned["level"], unpinned["fix"]) == ("warning", f"model.revision={COMMIT}")


def test_a_file_with_another_hash_is_named(fetched: tuple[Path, str]) -> None:
    folder, _ = fetched
    weights = next((folder / "hf").rglob("snapshots/*/model.safetensors"))
    problems = folder / "benchmarks" / "aime2025.jsonl"
    for path in (weights.resolve(), problems):
        content = path.read_bytes()
        os.chmod(path, 0o644)
        path.write_bytes(
            content[:-1] + bytes([content[-1] ^ 1]) if path != problems else content + b"\n"
        )
    found = doctor(folder, *PINS)
    assert found["model"]["level"] == found["benchmarks"]["level"] == "fatal"
    assert "recorded hashes do not match: model.safetensors" in found["model"]["cause"]
    fix = f"rm {weights.resolve()} && warmstart prefetch sft_4b model.path=someone/base "
    assert found["model"]["fix"].startswith(fix)
    assert "missing or damaged: aime2025.jsonl" in found["benchmarks"]["cause"]


@pytest.mark.parametrize(
    ("repositories", "words", "message"),
    [
        ({}, ["eval.sets=[homework]"], "homework is not a benchmark with a known hub dataset"),
        ({}, ["eval.sets=[aime2025]"], "model.path=someone/base is not a model on the hub"),
        ({}, ["eval.sets=[aime2025]"], "is not a dataset on the hub"),
        (
            THERE | {"datasets/math-ai/aime25": {"test.jsonl": problems(29)}},
            ["eval.sets=[aime2025]"],
            "29 problems",
        ),
        (
            THERE | {"datasets/math-ai/aime25": {"test.jsonl": problems(30, "q")}},
            ["eval.sets=[aime2025]"],
            "no column 'problem'",
        ),
    ],
)
def test_what_the_hub_does_not_give_is_named(
    repositories: dict[str, dict[str, bytes]], words: list[str], message: str, tmp_path: Path
) -> None:
    with serving(repositories) as hub:
        done = warm(tmp_path, hub.url, "prefetch", "sft_4b", *RECIPE, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr
    assert not list((tmp_path / "benchmarks").glob("*.jsonl"))


def test_a_recipe_that_generates_problems_gets_its_seeds(tmp_path: Path) -> None:
    """GSM8K's training set with its solutions, annotations included."""
    solution = "It is 5*8 = <<5*8=40>>40 clips in all.\n#### 40"
    question = "Ann has 5 boxes with 8 clips in each. How many clips does she have?"
    rows = (
        json.dumps({"question": f"{i}. {question}", "answer": solution}) + "\n" for i in range(7473)
    )
    repositories = {
        "models/someone/base": {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": save({"w": np.zeros(4, np.float32)}),
        },
        "datasets/openai/gsm8k": gsm8k(
            test=problems(1319, "question", answer="So\n#### 1"), train="".join(rows).encode()
        ),
    }
    words = ["prefetch", "qlora_gsm8k_4b", "model.path=someone/base"]
    with serving(repositories) as hub:
        done = warm(tmp_path, hub.url, *words)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "data" / "benchmarks" / "gsm8k_train.jsonl"
    seed = prompts.choose(path, 200, 42)[0]
    assert (seed.solution, seed.answer) == (solution.partition("\n")[0], "40")
    kept = read_json(tmp_path / "data" / "qlora_gsm8k_4b.prefetch.json")
    assert kept["data.synth.seeds"] == COMMIT
    # An existing file is kept, and the hub is not asked for what is there.
    path.write_text("mine")
    (path.parent / "gsm8k_test.jsonl").touch()
    with serving({"models/someone/base": repositories["models/someone/base"]}) as hub:
        assert warm(tmp_path, hub.url, *words).returncode == 0
    assert path.read_text() == "mine"
