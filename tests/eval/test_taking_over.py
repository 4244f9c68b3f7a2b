"""Evaluations that take over the rollouts of others; no engine runs."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.errors import StageFailed
from common.files import MANIFEST, read_json, sha256_file, write_json
from common.records import Key, Problem, Rollout
from data_prep.benchmarks import sets
from eval import evaluate as stage
from eval.evaluate import evaluate
from eval.evaluation_settings import SETTINGS
from eval.generation import rollout_files
from eval.generation.generate import Generated, rollout_seed
from eval.taking_over import take_over
from trainer.run.folder import Run
from trainer.run.model_label import BASE

PROBLEMS = 3


class Generator:
    """Stands for ``generate``: appends the missing rollouts, right ones, and keeps their keys."""

    def __init__(self) -> None:
        self.made: list[Key] = []
        self.most = 1_000
        """Rollouts per call before it fails."""

    def __call__(self, problems, folder, model, prompt, sampling, engines) -> Generated:
        path = folder / rollout_files.ROLLOUTS
        done = rollout_files.read(path)
        keys = {
            (p.set, p.id, k): p.answer
            for p in problems
            for k in range(sampling.rollouts)
            if (p.set, p.id, k) not in done
        }
        with path.open("a") as f:
            for key in list(keys)[: self.most]:
                rollout_files.append(f, rollout(key, keys[key], sampling.seed))
                self.made.append(key)
        if len(keys) > self.most:
            raise StageFailed("the last engine died")
        return Generated(engines=1 if keys else 0, made=len(keys))


def rollout(key: Key, answer: str, seed: int = 0) -> Rollout:
    text = f"<think></think>\\boxed{{{answer}}}"
    return Rollout(key, rollout_seed(seed, key), text, 5, "stop", "engine-0", 0.1, -0.25)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Generator:
    stand_in = Generator()
    monkeypatch.setattr(stage, "generate", stand_in)
    # The stand-in needs no model.
    monkeypatch.setattr(stage, "check_inputs", lambda *given: None)
    return stand_in


def asked(config: DictConfig, rollouts: int) -> DictConfig:
    other = config.copy()
    other.eval.rollouts = rollouts
    return other


def read(folder: Path) -> dict[Key, Rollout]:
    return rollout_files.read(folder / rollout_files.ROLLOUTS)


def ks(keys: Iterable[Key]) -> set[int]:
    return {k for _, _, k in keys}


def test_more_rollouts_generate_only_the_rest_and_fewer_none(
    config: DictConfig, run: Run, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    few = evaluate(asked(config, 4), run, BASE)
    before = (few / "rollouts.jsonl").read_bytes()
    assert read_json(few / "manifest.json")["taken_over"] == {}
    generator.made.clear()

    many = evaluate(asked(config, 16), run, BASE)
    assert many != few and (few / "rollouts.jsonl").read_bytes() == before
    assert len(generator.made) == 12 * PROBLEMS and ks(generator.made) == {*range(4, 16)}
    manifest = read_json(many / "manifest.json")
    assert manifest["taken_over"] == {few.name: 4 * PROBLEMS}
    assert (manifest["timed_rollouts"], manifest["devices"]) == (12 * PROBLEMS, 1)
    assert manifest["benchmarks"] == config.eval.benchmarks
    assert (
        f"{many.name}: 12 rollouts are taken over from {few.name}, 36 are to be generated"
        in capsys.readouterr().err
    )
    for key, one in read(many).items():
        assert one == rollout(key, key[1].removeprefix("p/")) or one.taken_from == few.name
        assert one.seed == rollout_seed(0, key) and one.mean_logprob == -0.25
    assert read_json(many / "metrics.json")["total"]["rollouts"] == 16 * PROBLEMS

    generator.made.clear()
    eight = evaluate(asked(config, 8), run, BASE)
    manifest = read_json(eight / "manifest.json")
    assert generator.made == [] and ks(read(eight)) == {*range(8)}
    # Named by the folder that generated them, however often they were taken over since.
    assert manifest["taken_over"] == {few.name: 4 * PROBLEMS, many.name: 4 * PROBLEMS}
    assert (manifest["timed_rollouts"], manifest["devices"]) == (0, 0)
    assert evaluate(asked(config, 4), run, BASE) == few


def test_an_interrupted_evaluation_goes_on_and_gives_what_it_has(
    config: DictConfig, run: Run, generator: Generator
) -> None:
    few = evaluate(asked(config, 4), run, BASE)
    generator.most = 7
    with pytest.raises(StageFailed):
        evaluate(asked(config, 16), run, BASE)
    many = stage.plan(asked(config, 16), run, BASE).folder
    assert len(read(many)) == 4 * PROBLEMS + 7
    # Killed while it copied: the last line is torn, later ones are not there.
    path = many / "rollouts.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6])[:-9])
    generator.most, generator.made = 1_000, []
    assert evaluate(asked(config, 16), run, BASE) == many
    assert ks(generator.made) == {*range(4, 16)} and len(generator.made) == 12 * PROBLEMS
    assert read_json(many / "manifest.json")["taken_over"] == {few.name: 4 * PROBLEMS}

    # A partial one that has more than the complete one, its last line being written.
    (many / "manifest.json").unlink()
    path.write_bytes(path.read_bytes()[:-9])
    torn = path.read_bytes()
    generator.made = []
    most = evaluate(asked(config, 17), run, BASE)
    assert len(generator.made) == PROBLEMS + 1 and path.read_bytes() == torn
    taken = read_json(most / "manifest.json")["taken_over"]
    assert taken == {few.name: 4 * PROBLEMS, many.name: 12 * PROBLEMS - 1}


def source(config: DictConfig, run: Run) -> Path:
    """A partial evaluation, as a killed process leaves it."""
    planned = stage.plan(config, run, BASE)
    write_json(planned.folder / SETTINGS, planned.settings.to_json())
    with (planned.folder / "rollouts.jsonl").open("w") as f:
        for p in problems(config):
            for k in range(config.eval.rollouts):
                rollout_files.append(f, rollout((p.set, p.id, k), p.answer))
    return planned.folder


def problems(config: DictConfig) -> list[Problem]:
    return sets.load(Path(config.eval.benchmarks), ["add"], config.eval.limit)


def taken(config: DictConfig, run: Run) -> int:
    """How many rollouts a new evaluation takes over."""
    planned = stage.plan(config, run, BASE)
    planned.folder.mkdir(parents=True)
    take_over(planned.folder, planned.settings, problems(config), run.evaluations)
    found = len(read(planned.folder))
    shutil.rmtree(planned.folder)
    return found


def test_what_is_damaged_is_left(
    config: DictConfig, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    few, five = source(asked(config, 4), run), asked(config, 5)
    path, said = few / "rollouts.jsonl", f"nothing is taken over from {few.name}: "
    whole, settings = path.read_text(), (few / SETTINGS).read_text()
    assert taken(five, run) == 4 * PROBLEMS
    assert "12 rollouts are taken over" in capsys.readouterr().err
    write_json(few / MANIFEST, {"files": {path.name: sha256_file(path)}})
    assert taken(five, run) == 4 * PROBLEMS and said not in capsys.readouterr().err
    path.write_text(whole.replace("boxed{0}", "boxed{9}"))
    assert taken(five, run) == 0 and said in capsys.readouterr().err
    (few / MANIFEST).unlink()
    path.write_text(whole + "broken\n")
    assert taken(five, run) == 0 and said in capsys.readouterr().err
    path.write_text(whole.replace('"seed": ', '"seed": 1', 1))
    assert taken(five, run) == 4 * PROBLEMS - 1
    path.write_text(whole)
    for text in ("[]", "{}", settings.replace('"auto"', '"float32"')):
        (few / SETTINGS).write_text(text)
        assert taken(five, run) == 0 and said not in capsys.readouterr().err
    (few / SETTINGS).write_text("{")
    assert taken(five, run) == 0 and said in capsys.readouterr().err


def test_the_one_with_the_most_is_chosen(config: DictConfig, run: Run) -> None:
    for n in (2, 4, 3):
        source(asked(config, n), run)
    assert taken(asked(config, 5), run) == 4 * PROBLEMS


@pytest.mark.parametrize("key", ["seed", "temperature", "top_p", "limit", "max_tokens", "model"])
def test_other_settings_take_nothing_over(config: DictConfig, run: Run, key: str) -> None:
    source(asked(config, 4), run)
    other = asked(config, 5)
    if key == "model":  # as one that is exported anew
        (Path(config.model.path) / "config.json").write_text('{"other": 1}')
    else:
        other.eval[key] = 2
    assert taken(other, run) == 0
