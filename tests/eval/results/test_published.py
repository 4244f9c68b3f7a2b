"""Published figures beside evaluations that follow their protocol, or not."""

from pathlib import Path
from typing import Any

import pytest

from eval.evaluation_settings import EvaluationSettings
from eval.results import base_vs_sft, published
from eval.results import evaluation as evaluations
from tests.eval.runs import SETTINGS_OF_ALL, empty_run, evaluation
from trainer.recipe import load as configs
from trainer.recipe import protocols
from trainer.run.folder import Run

REFERENCES = [configs.load(recipe).reference for recipe in ("sft_4b", "qlora_gsm8k_4b")]


def settings(**values: Any) -> EvaluationSettings:
    model = {"label": "step_7", "identity": {}}
    sets = {"model": model, "benchmarks": {"gsm8k_test": "h"}}
    return EvaluationSettings.from_json(sets | SETTINGS_OF_ALL | values)


def following(name: str) -> dict[str, Any]:
    """The settings of an evaluation that does all that the authors told, and differs elsewhere."""
    known = protocols.read(name).known
    own = {key: known[key] for key in known if key not in ("sets", "extractor")}
    return own | {"answer_style": known["extractor"], "prefill": "Hm", "seed": 9}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return empty_run(tmp_path / "runs" / "toy")


@pytest.mark.parametrize("reference", REFERENCES)
def test_an_evaluation_that_follows_the_protocol_does_not_differ(reference: Any) -> None:
    assert not list(published.differences(reference, settings(**following(reference.protocol))))


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_value_that_the_authors_gave_counts(reference: Any) -> None:
    protocol = protocols.read(reference.protocol)
    own = following(reference.protocol)
    for key in protocol.known:
        if key == "sets":
            continue
        name = "answer_style" if key == "extractor" else key
        other: Any = "answer_is" if key == "extractor" else "float32" if key == "dtype" else 3
        other = "{problem}\nGo." if key in ("prompt", "system") else other
        (told,) = published.differences(reference, settings(**own | {name: other}))
        assert told.startswith(f"{key} ")
        assert ("(from their script)" in told) == (key in protocol.script)


def test_four_bit_figures_beside_sixteen_bit_ones_are_told() -> None:
    own = following("gsm8k_synth") | {"dtype": "auto"}
    assert list(published.differences(REFERENCES[1], settings(**own))) == [
        'dtype `"nf4"`, ours `"auto"`'
    ]


def test_a_reference_without_a_protocol_says_nothing_of_it() -> None:
    assert not list(published.differences({"source": "them"}, settings()))


def test_the_note_tells_epochs_lengths_and_differences(run: Run) -> None:
    folder = evaluation(run, "step_7", {"amc2023": 12}, lambda p, k: p.answer)
    text = published.note(REFERENCES[0], evaluations.read(folder))
    for part in (
        "37.0 % after epoch 1, 38.9 % after epoch 2, 37.3 % after epoch 3",
        "median length: 11,600 tokens; 37 % of rollouts hit the budget",
        "They were measured under another protocol (‡): rollouts 16, ours 4; max_tokens 16,384, "
        "ours 32,768; ",
        "temperature 0.7 (from their script), ours 0.6",
        "eval.protocol=qwen3_4b_sft_math",
    ):
        assert part in text, text


def test_figures_taken_otherwise_are_marked(run: Run) -> None:
    evaluation(run, "step_7", {"amc2023": 12}, lambda p, k: p.answer)
    titles = base_vs_sft.headline(base_vs_sft.newest(run), REFERENCES[0])[0]
    assert titles[-2:] == ["published base‡", "published SFT‡"]
    assert base_vs_sft.OTHERWISE == "‡"
