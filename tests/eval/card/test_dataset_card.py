"""A published dataset: its files load, its rows are read back, its card is honest and whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from omegaconf import DictConfig

from common.files import MANIFEST, read_json, sha256_file, write_json
from data_prep.output.folder import PUBLISHED, dataset_folder
from data_prep.synth import writer
from eval.card.dataset_card import stage
from eval.card.training_data import TrainingData
from tests.conftest import environment
from tests.upload_hub import REPO, SECRET, serving
from trainer.recipe import load as configs
from warmstart import dataset

HOSTILE = "---\nlicense: mit\n---\n`````\n# No heading | no cell\n</details>\n<!-- ${7*7}?"
COLUMNS = "data.columns={problem: problem, solution: solution, answer: answer, uuid: uuid}"
NAMES = ("problem", "solution", "answer")


def words(i: int) -> str:
    """Words that no other problem has, so that none is a near-duplicate."""
    return " ".join(f"{chr(97 + i % 26)}{chr(97 + (i * k) % 26)}{k}{i}" for k in range(1, 30))


def written(folder: Path, answers: list[str]) -> list[str]:
    """Writes a source whose every problem is hostile; returns the words that build it."""
    lines = [
        {
            "uuid": f"u{i}",
            "problem": f"{HOSTILE} Number {i}: {words(i)}",
            "solution": f"````` Thought {i}\n\n# {i}",
            "answer": answer,
        }
        for i, answer in enumerate(answers)
    ]
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        f"data.source={source}",
        COLUMNS,
        f"data.dir={folder}/data",
        f"run.root={folder}/runs",
        "data.test_rows=5",
        "data.spare_share=0",
        "data.processes=1",
    ]


def built(folder: Path, answers: list[str], *words: str) -> tuple[TrainingData, DictConfig]:
    config = configs.load("tiny", [*written(folder, answers), *words])
    path, _, _ = dataset.build(config)
    return TrainingData(path, read_json(path / MANIFEST)), config


def staged(folder: Path, answers: list[str], *words: str) -> tuple[Path, TrainingData]:
    data, config = built(folder, answers, *words)
    stage(data, config, REPO, folder / "staged")
    return folder / "staged", data


def test_what_is_uploaded_loads_and_is_read_back(tmp_path: Path) -> None:
    folder, data = staged(tmp_path, [str(i) for i in range(30)])
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 25, "test": 5}
    row = loaded["train"][0]
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert [m["content"] for m in row["messages"]] == [row["problem"], row["solution"]]
    assert loaded["train"]["id"] == data.manifest["row_ids"]["train"]
    before = {tuple(row[name] for name in NAMES) for split in loaded.values() for row in split}
    pattern = f"data.source={folder}/data/*.parquet"
    for columns in (COLUMNS, "data.columns={messages: messages, answer: answer, uuid: uuid}"):
        again = [f"data.dir={tmp_path}/{columns[14:18]}", f"run.root={tmp_path}/runs", columns]
        words = [pattern, *again, "data.test_rows=5", "data.spare_share=0", "data.processes=1"]
        path, _, _ = dataset.build(configs.load("tiny", words))
        rows = pq.read_table(path / "rows.parquet").to_pylist()
        assert {tuple(row[name] for name in NAMES) for row in rows} == before


def test_the_card_is_valid_and_hostile_rows_stay_inside_their_fences(tmp_path: Path) -> None:
    folder, data = staged(tmp_path, ["1"] * 30, "data.license=cc-by-4.0")
    card = DatasetCard.load(folder / "README.md")
    values = card.data.to_dict()
    assert values["license"] == "cc-by-4.0" and values["size_categories"] == "n<1K"
    assert values["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train.parquet"},
        {"split": "test", "path": "data/test.parquet"},
    ]
    # Everything outside of fences: no text of a row may end one.
    open_, outside = "", []
    for line in card.text.splitlines():
        if fence := re.fullmatch(r"(`{3,})[a-z]*", line):
            if not open_:
                open_ = fence[1]
            elif line == open_:
                open_ = ""
        elif not open_:
            outside.append(line)
    assert not open_
    assert [line for line in outside if line.startswith("# ")] == ["# warm-tiny"]
    assert not [line for line in outside if "No heading" in line or "Thought" in line]
    text = "\n".join(outside)
    for said in (
        "25 training rows",
        "5 held-out rows",
        "| kept: train | 25 |",
        "The dataset is under `cc-by-4.0`.",
        "The rows were not compared with any benchmark.",
        "- over 60000 characters",
        "No training row has a negative number as its answer.",
        f"| manifest | `{sha256_file(data.folder / MANIFEST)}` |",
    ):
        assert said in text, said
    assert str(tmp_path) not in card.content


def test_the_limitations_are_those_of_the_rows(tmp_path: Path) -> None:
    mixed, _ = staged(tmp_path, [f"-{i}" if i % 2 else f"{i}/7" for i in range(30)])
    text = (mixed / "README.md").read_text()
    assert "negative number" not in text and "whole number" not in text


def test_a_licence_given_later_is_no_other_dataset_and_old_manifests_name_their_writer(
    tmp_path: Path,
) -> None:
    data, config = built(tmp_path, ["1"] * 30)
    words = [*written(tmp_path, ["1"] * 30), "data.license=mit"]
    later = configs.load("tiny", words)
    assert dataset.build(later)[2] is False
    stage(data, later, REPO, tmp_path / "later")
    assert DatasetCard.load(tmp_path / "later" / "README.md").data.license == "mit"
    stage(data, config, REPO, tmp_path / "without")
    assert DatasetCard.load(tmp_path / "without" / "README.md").data.license is None
    assert "No licence is stated." in (tmp_path / "without" / "README.md").read_text()
    old = {"settings": {"source": {"synthetic": {"backend": "anthropic", "model": "m"}}}}
    found = writer.from_manifest(old)
    assert found and writer.ANTHROPIC_TERMS in found.sentence()
    assert writer.from_manifest(old | writer.facts("anthropic", "m")) == found
    local = writer.from_backend("local", "Qwen/Qwen3-8B")
    assert local.terms == "https://huggingface.co/Qwen/Qwen3-8B"
    assert "Anthropic" not in local.sentence()


def pushed(
    folder: Path, words: list[str], url: str, token: str | None, repo: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in environment().items() if not k.startswith("HF_")}
    values = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hf")}
    values |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "warmstart", "data", "tiny", *words, "--push", repo]
    return subprocess.run(command, cwd=folder, env=clean | values, capture_output=True, text=True)


def test_push_uploads_the_dataset_and_records_its_name(tmp_path: Path) -> None:
    words = written(tmp_path, [str(i) for i in range(30)])
    config = configs.load("tiny", words)
    with serving("datasets") as hub:
        done = pushed(tmp_path, words, hub.url, SECRET, REPO)
        assert done.returncode == 0, done.stderr
        (created,) = hub.created
        assert (created["name"], created["type"]) == ("warm-tiny", "dataset")
        assert created["visibility"] == "private"
        assert set(hub.files) == {"README.md", "data/train.parquet", "data/test.parquet"}
        assert f'load_dataset("{REPO}"' in hub.files["README.md"].decode()
        assert SECRET not in done.stdout + done.stderr
        folder = dataset_folder(config)
        assert read_json(folder / PUBLISHED) == {"repo": REPO}
        assert TrainingData(folder, read_json(folder / MANIFEST)).hub_names == [REPO]
        assert [p.name for p in folder.parent.iterdir() if "push" in p.name] == []
        hub.refusal = '"license" must be one of apache-2.0, mit'
        done = pushed(tmp_path, words, hub.url, SECRET, REPO)
        assert done.returncode == 2 and "data.license in the recipe" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, REPO, "HF_TOKEN is not set"),
        (SECRET, "no spaces/here", "--push no spaces/here"),
        (SECRET, "ownerless", "OWNER/ownerless"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_any_work(
    token: str | None, repo: str, message: str, tmp_path: Path
) -> None:
    done = pushed(tmp_path, written(tmp_path, ["1"] * 30), "http://127.0.0.1:9", token, repo)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()


def test_a_damaged_dataset_is_not_published(tmp_path: Path) -> None:
    words = written(tmp_path, ["1"] * 30)
    data, _ = built(tmp_path, ["1"] * 30)
    manifest = read_json(data.folder / MANIFEST)
    manifest["files"]["rows.parquet"] = "0" * 64
    write_json(data.folder / MANIFEST, manifest)
    done = pushed(tmp_path, words, "http://127.0.0.1:9", SECRET, REPO)
    assert done.returncode == 2 and "rows.parquet is missing or damaged" in done.stderr
