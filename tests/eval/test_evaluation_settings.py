"""The settings file of an evaluation, whose hash names the folder."""

import json

from eval.evaluation_settings import EvaluationSettings

FILE = {
    "model": {"label": "step_7", "identity": {"manifest.json": "a"}},
    "benchmarks": {"heldout": "b"},
    "template": "c",
    "tokenizer": "d",
    "limit": None,
    "answer_style": "answer_is",
    "rollouts": 2,
    "temperature": 0.6,
    "top_p": 0.95,
    "max_tokens": 16,
    "seed": 0,
    "dtype": "auto",
}


def test_the_file_does_not_change() -> None:
    written = EvaluationSettings.from_json(FILE).to_json()
    assert json.dumps(written) == json.dumps(FILE)


def test_only_what_a_prompt_adds_is_written() -> None:
    asked = {"prompt": "{problem}\nGo.", "prefill": "<think>\n\n</think>\n\n"}
    settings = EvaluationSettings.from_json(FILE | asked)
    assert settings.to_json() == FILE | asked
    assert settings.prompt.system is None and settings.prompt.text == "{problem}\nGo."


def test_a_file_without_an_answer_style_is_of_boxed_answers() -> None:
    old = {key: value for key, value in FILE.items() if key != "answer_style"}
    assert EvaluationSettings.from_json(old).answer_style == "boxed"
