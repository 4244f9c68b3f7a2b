"""The stage around an engine that is stubbed: folders, settings, manifest, refusals."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from data_prep.files import read_json, sha256_file
from data_prep.schema import Rollout
from eval import evaluate as stage
from eval import ledger
from eval.evaluate import evaluate
from trainer.rundir import Run


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    for folder in ("model", "data/toy/tokenizer", "bench"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "data/toy/tokenizer/tokenizer.json").write_text("{}")
    lines = [{"id": f"p/{i}", "problem": "?", "answer": str(i)} for i in range(3)]
    (tmp_path / "bench/add.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return OmegaConf.create(
        {
            "device": "cpu",
            "model": {"path": str(tmp_path / "model"), "revision": None},
            "data": {"name": "toy", "dir": str(tmp_path / "data")},
            "eval": {
                "benchmarks": str(tmp_path / "bench"), "sets": ["add"], "limit": None, "rollouts": 2,
                "temperature": 0.6, "top_p": 0.95, "max_tokens": 8, "seed": 0, "dtype": "auto", "engines": 1,
                "tensor_parallel": 1, "concurrency": 4,
            },
        }
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs/toy")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of each call of the stub, which answers every problem rightly."""
    seen: list[dict[str, Any]] = []

    def generate(problems: Any, model: str, tokenizer: Path, folder: Path, **options: Any) -> None:
        seen.append({"model": model, **options})
        with (folder / ledger.ROLLOUTS).open("a") as f:
            for p in problems:
                for k in range(options["rollouts"]):
                    text = f"<think></think>\\boxed{{{p.answer}}}"
                    ledger.append(f, Rollout((p.set, p.id, k), 0, text, 5, "stop", "engine-0", 0.1))

    monkeypatch.setattr(stage.generation, "generate", generate)
    return seen


def test_base(config: DictConfig, run: Run, calls: list[dict[str, Any]]) -> None:
    folder = evaluate(config, run, "base")
    assert re.fullmatch(r"add@base-[0-9a-f]{8}", folder.name) and folder.parent == run.root / "evals"
    manifest = read_json(folder / "manifest.json")
    assert manifest["sha256"] == {
        name: sha256_file(folder / name) for name in ("rollouts.jsonl", "grades.jsonl", "metrics.json")
    }
    assert manifest["settings"] == read_json(folder / "settings.json")
    assert {"ray", "torch", "transformers"} <= set(manifest["versions"])
    assert read_json(folder / "metrics.json")["total"]["pass@1"] == 1
    assert calls[0]["model"] == config.model.path and calls[0]["revision"] is None
    before = (folder / "manifest.json").stat()
    assert evaluate(config, run, "base") == folder
    assert len(calls) == 1 and (folder / "manifest.json").stat() == before


def test_the_name_tells_what_changes_a_rollout(config: DictConfig, run: Run, calls: list[Any]) -> None:
    folder = evaluate(config, run, "base")
    for key in ("engines", "tensor_parallel", "concurrency"):
        other = config.copy()
        other.eval[key] = 2
        assert evaluate(other, run, "base") == folder
    changes = {
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 9,
        "seed": 1,
        "dtype": "float32",
        "rollouts": 3,
        "limit": 2,
    }
    folders = {folder}
    for key, value in changes.items():
        other = config.copy()
        other.eval[key] = value
        folders.add(evaluate(other, run, "base"))
    (Path(config.model.path) / "config.json").write_text('{"other": 1}')
    folders.add(evaluate(config, run, "base"))
    with (Path(config.eval.benchmarks) / "add.jsonl").open("a") as f:
        f.write('{"id": "new", "problem": "?", "answer": "1"}\n')
    folders.add(evaluate(config, run, "base"))
    assert len(folders) == 1 + len(changes) + 2


def test_step(config: DictConfig, run: Run, calls: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"no export of step_5 \(there: none\): warmstart export .*toy 5"):
        evaluate(config, run, "step_5")
    run.export(5).mkdir(parents=True)
    (run.export(5) / "manifest.json").write_text("{}")
    folder = evaluate(config, run, "step_5")
    assert folder.name.startswith("add@step_5-")
    assert calls[0]["model"] == str(run.export(5))


def test_hub_model_keeps_its_revision(config: DictConfig, run: Run, calls: list[dict[str, Any]]) -> None:
    config.model.path, config.model.revision = "some/model", "abc"
    folder = evaluate(config, run, "base")
    assert read_json(folder / "settings.json")["model"]["identity"] == {
        "name": "some/model",
        "revision": "abc",
    }
    assert calls[0]["revision"] == "abc"


def test_refusals(config: DictConfig, run: Run, calls: list[Any]) -> None:
    with pytest.raises(ValueError, match="neither base nor step_N"):
        evaluate(config, run, "last")
    folder = evaluate(config, run, "base")
    (folder / "manifest.json").unlink()
    (folder / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="of other settings"):
        evaluate(config, run, "base")
    (Path(config.data.dir) / "toy/tokenizer/tokenizer.json").unlink()
    with pytest.raises(ValueError, match="warmstart data RECIPE"):
        evaluate(config, run, "base")
    assert len(calls) == 1


def test_suites() -> None:
    assert stage.suite(["amc2023", "aime2025", "aime2026"]) == "t0"
    assert stage.suite(["aime2025", "math500"]) == "aime2025+math500"
