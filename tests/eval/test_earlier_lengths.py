"""Which evaluation gives the expected lengths of another; no engine runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.files import MANIFEST, read_json, sha256_file, write_json
from common.records import Problem, Rollout
from data_prep.benchmarks import sets
from eval import evaluate as stage
from eval.earlier_lengths import expected
from eval.evaluate import evaluate
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.generation.generate import Generated, rollout_seed
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

HASH = "0" * 8


@pytest.fixture
def problems(config: DictConfig) -> list[Problem]:
    return sets.load(Path(config.eval.benchmarks), ["add"], None)


@pytest.fixture
def new(config: DictConfig, run: Run) -> EvaluationSettings:
    """Step 8's, with a budget of 8 tokens and two rollouts per problem."""
    return replace(stage.plan(config, run, BASE).settings, label=ModelLabel(8))


def write(run: Run, settings: EvaluationSettings, tokens: dict[str, list[int]]) -> Path:
    """A complete evaluation with rollouts of these lengths by problem."""
    name = f"{settings.sampling.seed}{HASH}"
    folder = run.evaluation("add", settings.label, name)
    path = folder / rollout_files.ROLLOUTS
    write_json(folder / SETTINGS, settings.to_json())
    with path.open("w") as f:
        for problem, of in tokens.items():
            for k, length in enumerate(of):
                key = ("add", problem, k)
                seed = rollout_seed(settings.sampling.seed, key)
                rollout_files.append(f, Rollout(key, seed, "", length, "stop", "engine-0", 0.1))
    write_json(folder / MANIFEST, {"files": {path.name: sha256_file(path)}})
    return folder


def given(run: Run, settings: EvaluationSettings, problems: list[Problem]) -> dict[str, float]:
    """Expected lengths of a new evaluation, by problem."""
    folder = run.evaluation("add", settings.label, "f" * 8)
    found = expected(folder, settings, problems, run.evaluations)
    return {problem: mean for (_, problem), mean in found.items()}


def flat(length: int) -> dict[str, list[int]]:
    return {f"p/{i}": [length, length] for i in range(3)}


def test_means_count_the_mean_of_all_once_and_end_at_the_budget(
    run: Run, new: EvaluationSettings, problems: list[Problem], capsys: pytest.CaptureFixture[str]
) -> None:
    larger = replace(new.sampling, max_tokens=16)
    earlier = replace(new, label=ModelLabel(4), sampling=larger)
    write(run, earlier, {"p/0": [2, 4], "p/1": [16, 9], "gone": [1, 1]})
    # Means within 8 tokens: 3, 8 and 1, together 4.
    assert given(run, new, problems) == pytest.approx({"p/0": 10 / 3, "p/1": 20 / 3})
    said = capsys.readouterr().err
    assert said == "add@step_8-ffffffff: expected lengths from step_4's evaluation (2 problems)\n"


def test_the_nearest_step_with_the_most_problems(
    run: Run, new: EvaluationSettings, problems: list[Problem]
) -> None:
    def add(label: ModelLabel, tokens: dict[str, list[int]]) -> None:
        write(run, replace(new, label=label), tokens)

    assert given(run, new, problems) == {}
    add(BASE, flat(1))
    assert given(run, new, problems) == {}
    add(ModelLabel(average="a"), flat(2))
    assert given(run, new, problems)["p/0"] == 2
    for step, length in ((2, 3), (5, 4), (12, 5)):
        add(ModelLabel(step), flat(length))
    assert given(run, new, problems)["p/0"] == 4
    assert given(run, replace(new, label=ModelLabel(13)), problems)["p/0"] == 5
    assert given(run, replace(new, label=ModelLabel(average="b")), problems)["p/0"] == 2
    assert given(run, replace(new, label=BASE), problems) == {}  # its own would be taken over
    shuffled = replace(new, label=BASE, sampling=replace(new.sampling, seed=1))
    assert given(run, shuffled, problems)["p/0"] == 1


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("top_p", 1.0), ("max_tokens", 7)]
)
def test_other_sampling_gives_nothing_but_another_seed_does(
    run: Run, new: EvaluationSettings, problems: list[Problem], name: str, value: float
) -> None:
    earlier = replace(new, label=ModelLabel(4))
    write(run, replace(earlier, sampling=replace(new.sampling, **{name: value})), flat(4))
    assert given(run, new, problems) == {}
    write(run, replace(earlier, sampling=replace(new.sampling, seed=7)), flat(4))
    assert given(run, new, problems)["p/0"] == 4


@pytest.mark.parametrize("change", ["tokenizer", "template", "prompt", "benchmarks"])
def test_another_prompt_or_other_problems_give_nothing(
    run: Run, new: EvaluationSettings, problems: list[Problem], change: str
) -> None:
    prompt = replace(new.prompt, system="Think.")
    other = {"prompt": prompt, "benchmarks": {"add": "other"}}.get(change, "other")
    write(run, replace(new, label=ModelLabel(4), **{change: other}), flat(4))
    assert given(run, new, problems) == {}


def test_what_is_taken_over_counts_once(
    run: Run, new: EvaluationSettings, problems: list[Problem]
) -> None:
    write(run, new, flat(3))
    more = replace(new, sampling=replace(new.sampling, rollouts=4))
    assert given(run, more, problems) == {}
    write(run, replace(new, label=ModelLabel(2)), flat(5))
    assert given(run, more, problems)["p/0"] == 5


def test_what_is_damaged_is_left_and_the_next_is_taken(
    run: Run, new: EvaluationSettings, problems: list[Problem], capsys: pytest.CaptureFixture[str]
) -> None:
    near = write(run, replace(new, label=ModelLabel(7)), flat(4))
    write(run, replace(new, label=ModelLabel(2)), flat(5))
    path, said = near / rollout_files.ROLLOUTS, f"no expected lengths from {near.name}: "
    whole, kept = path.read_text(), (near / SETTINGS).read_text()
    assert given(run, new, problems)["p/0"] == 4
    assert said not in capsys.readouterr().err
    path.write_text(whole.replace('"tokens": 4', '"tokens": 5'))
    assert given(run, new, problems)["p/0"] == 5 and said in capsys.readouterr().err
    path.write_text("broken\n")
    write_json(near / MANIFEST, {"files": {path.name: sha256_file(path)}})
    assert given(run, new, problems)["p/0"] == 5 and said in capsys.readouterr().err
    for text in ("{", "[]", "{}"):
        (near / SETTINGS).write_text(text)
        assert given(run, new, problems)["p/0"] == 5 and said in capsys.readouterr().err
    (near / SETTINGS).write_text(kept)
    (near / MANIFEST).unlink()  # not complete: those that ended are the short ones
    assert given(run, new, problems)["p/0"] == 5 and said not in capsys.readouterr().err


def test_evaluate_hands_them_to_the_generator_and_changes_nothing_else(
    config: DictConfig, run: Run, problems: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    priors = []

    def generate(problems, folder, model, prompt, sampling, engines, prior) -> Generated:
        priors.append(prior)
        done = rollout_files.read(folder / rollout_files.ROLLOUTS)
        with (folder / rollout_files.ROLLOUTS).open("a") as f:
            for p in problems:
                for k in range(sampling.rollouts):
                    if (key := (p.set, p.id, k)) not in done:
                        seed = rollout_seed(sampling.seed, key)
                        rollout_files.append(f, Rollout(key, seed, "", 5, "stop", "e", 0.1))
        return Generated(1, len(problems) * sampling.rollouts)

    monkeypatch.setattr(stage, "generate", generate)
    alone = evaluate(config, run, BASE)
    elsewhere = Run(run.root.with_name("other"))
    planned = stage.plan(config, elsewhere, BASE)
    seeded = replace(planned.settings, sampling=replace(planned.settings.sampling, seed=1))
    write(elsewhere, seeded, flat(4))
    told = evaluate(config, elsewhere, BASE)
    assert priors == [{}, {(p.set, p.id): 4.0 for p in problems}]
    assert told.name == alone.name
    for name in (SETTINGS, rollout_files.ROLLOUTS, rollout_files.GRADES, "metrics.json"):
        assert (told / name).read_bytes() == (alone / name).read_bytes()
    assert read_json(told / MANIFEST).keys() == read_json(alone / MANIFEST).keys()
    # Resumed with nothing missing, it looks for no lengths.
    (told / MANIFEST).unlink()
    assert evaluate(config, elsewhere, BASE) == told and priors[-1] == {}
