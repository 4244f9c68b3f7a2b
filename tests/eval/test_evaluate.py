"""The stage around generation: folders, settings, manifest, refusals."""

import json
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.errors import UserError
from common.files import read_json, sha256_file, write_json
from common.records import Rollout
from data_prep.benchmarks import sets
from data_prep.benchmarks.known import BENCHMARKS
from eval import evaluate as stage
from eval.evaluate import evaluate
from eval.generation import rollout_files
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


def fill(config: DictConfig, run: Run, label: ModelLabel) -> Path:
    """Puts a right rollout for every problem into the planned folder, as an earlier call would have
    left them.
    """
    planned = stage.plan(config, run, label)
    planned.folder.mkdir(parents=True, exist_ok=True)
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), config.eval.limit):
            for k in range(config.eval.rollouts):
                text = f"<think></think>\\boxed{{{p.answer}}}"
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, 5, "stop", "engine-0", 0.1)
                )
    return planned.folder


def test_finished_rollouts_are_graded_without_an_engine(config: DictConfig, run: Run) -> None:
    folder = fill(config, run, BASE)
    assert (
        re.fullmatch(r"add@base-[0-9a-f]{8}", folder.name) and folder.parent == run.root / "evals"
    )
    assert evaluate(config, run, BASE) == folder
    manifest = read_json(folder / "manifest.json")
    names = ("settings.json", "problems.jsonl", "rollouts.jsonl", "grades.jsonl", "metrics.json")
    assert manifest["files"] == {name: sha256_file(folder / name) for name in names}
    assert {"ray", "torch", "transformers"} <= set(manifest["versions"])
    assert read_json(folder / "metrics.json")["total"]["pass@1"] == 1
    before = (folder / "manifest.json").stat()
    assert evaluate(config, run, BASE) == folder
    assert (folder / "manifest.json").stat() == before


def test_a_prefill_is_graded_with_the_rollout_that_continues_it(
    config: DictConfig, run: Run
) -> None:
    config.eval.prefill = "<think>\n\\boxed{7}\n</think>\n\n\\boxed{"
    folder = stage.plan(config, run, BASE).folder
    folder.mkdir(parents=True)
    with (folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None):
            for k in range(config.eval.rollouts):
                text = f"{p.answer}}}."
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, 5, "stop", "engine-0", 0.1)
                )
    evaluate(config, run, BASE)
    assert read_json(folder / "metrics.json")["total"]["pass@1"] == 1


def test_grading_again_follows_the_rollouts(config: DictConfig, run: Run) -> None:
    folder = evaluate_filled(config, run)
    wrong = (folder / "rollouts.jsonl").read_text().replace("boxed{0}", "boxed{9}")
    (folder / "rollouts.jsonl").write_text(wrong)
    made = read_json(folder / "manifest.json") | {"versions": {"vllm": "of another machine"}}
    write_json(folder / "manifest.json", made)
    assert stage.regrade(folder) == folder
    assert read_json(folder / "manifest.json")["versions"] == made["versions"]
    assert read_json(folder / "metrics.json")["total"]["pass@1"] == pytest.approx(2 / 3)
    assert read_json(folder / "manifest.json")["files"]["grades.jsonl"] == sha256_file(
        folder / "grades.jsonl"
    )
    with pytest.raises(UserError, match="is not an evaluation"):
        stage.regrade(run.root)


def evaluate_filled(config: DictConfig, run: Run) -> Path:
    fill(config, run, BASE)
    return evaluate(config, run, BASE)


def test_the_name_tells_what_changes_a_rollout(config: DictConfig, run: Run) -> None:
    folder = stage.plan(config, run, BASE).folder
    for key, value in (
        ("engines", 2),
        ("tensor_parallel", 2),
        ("concurrency", 2),
        ("concurrency", None),
    ):
        other = config.copy()
        other.eval[key] = value
        assert stage.plan(other, run, BASE).folder == folder
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
        folders.add(stage.plan(other, run, BASE).folder)
    (Path(config.model.path) / "config.json").write_text('{"other": 1}')
    folders.add(stage.plan(config, run, BASE).folder)
    with (Path(config.eval.benchmarks) / "add.jsonl").open("a") as f:
        f.write('{"id": "new", "problem": "?", "answer": "1"}\n')
    folders.add(stage.plan(config, run, BASE).folder)
    assert len(folders) == 1 + len(changes) + 2


def test_a_step_is_its_export(config: DictConfig, run: Run) -> None:
    with pytest.raises(
        UserError,
        match=r"no export of step_5 \(exports: none; checkpoints: none\): warmstart export .*toy ",
    ):
        evaluate(config, run, ModelLabel(5))
    run.export(5).mkdir(parents=True)
    (run.export(5) / "manifest.json").write_text("{}")
    planned = stage.plan(config, run, ModelLabel(5))
    assert planned.folder.name.startswith("add@step_5-")
    assert planned.model.path == str(run.export(5))


def test_a_hub_model_keeps_its_revision(config: DictConfig, run: Run) -> None:
    config.model.path, config.model.revision = "some/model", "abc"
    planned = stage.plan(config, run, BASE)
    assert planned.settings.identity == {"name": "some/model", "revision": "abc"}
    assert planned.model.revision == "abc"


def test_refusals(config: DictConfig, run: Run) -> None:
    folder = evaluate_filled(config, run)
    (folder / "manifest.json").unlink()
    settings = folder / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"seed": 7}))
    with pytest.raises(UserError, match=r"has rollouts with other settings .*\n  seed: 7 -> 0\n"):
        evaluate(config, run, BASE)
    settings.write_text("{}")
    with pytest.raises(UserError, match=r"settings\.json does not hold an evaluation's settings"):
        evaluate(config, run, BASE)
    (Path(config.verl.model.tokenizer_path) / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer: warmstart data toy builds it"):
        evaluate(config, run, BASE)


def test_suites() -> None:
    assert stage.suite(["amc2023", "aime2025", "aime2026"]) == "t0"
    assert stage.suite(["aime2025", "math500"]) == "aime2025+math500"
    assert stage.suite(["gsm8k_test"]) == "gsm8k"


def test_a_suite_brings_its_protocol(config: DictConfig, run: Run) -> None:
    line = {"problem": "?", "answer": "1"}
    lines = [
        json.dumps({"id": f"g/{i}"} | line) + "\n" for i in range(BENCHMARKS["gsm8k_test"].problems)
    ]
    (Path(config.eval.benchmarks) / "gsm8k_test.jsonl").write_text("".join(lines))
    config.eval.update({"sets": ["gsm8k"], "rollouts": None, "temperature": None})
    planned = stage.plan(config, run, BASE)
    assert planned.folder.name.startswith("gsm8k@base-")
    assert (planned.settings.sampling.rollouts, planned.settings.sampling.temperature) == (1, 0)
    assert planned.settings.benchmarks.keys() == {"gsm8k_test"}
    config.eval.temperature = 0.5
    assert stage.plan(config, run, BASE).settings.sampling.temperature == 0.5
