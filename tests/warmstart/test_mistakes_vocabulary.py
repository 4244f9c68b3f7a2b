"""A model and a dataset whose tokens differ are refused before anything starts."""

import json
import shutil

import pytest

from tests.warmstart.conftest import SMALL
from tests.warmstart.mistakes import Careless
from trainer.doctor.vocabulary import check as check_vocabulary
from trainer.recipe import load as configs
from warmstart.cli import main


@pytest.mark.parametrize("verb", ["data", "run", "doctor"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.path=model"], "model.path=model holds a model, and model.init asks for a random"),
        (["model.path=model", "model.init=null"], "which the model in model does not know"),
        (
            ["model.path=model", "model.init=null", "model.tokenizer=model"],
            "the model in model has no tokenizer (tokenizer.json)",
        ),
    ],
)
def test_a_model_whose_tokens_the_dataset_would_not_have(
    verb: str,
    words: list[str],
    message: str,
    user: Careless,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["tiny", SMALL, "name=new", *words]
    if words[-1] == "model.tokenizer=model":
        (user.folder / "model" / "tokenizer.json").unlink()
    if verb == "doctor":
        (user.folder / "model" / "model.safetensors").write_bytes(bytes(8))
        assert main(["doctor", *words]) == 3
        (line,) = (line for line in capsys.readouterr().out.splitlines() if message in line)
        assert line.startswith("fatal     model  ")
    else:
        assert message in user.only(verb, *words)


def test_a_dataset_of_another_vocabulary_is_not_trained_on(user: Careless) -> None:
    file = user.folder / "model" / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(values))
    said = user.only("train", "tiny", SMALL, "model.init=null", "model.path=model")
    assert said.startswith("the dataset's tokenizer (data/tiny/tokenizer) has other token ids")
    # A model may know more tokens than the dataset has.
    shutil.copy(user.folder / "data" / "tiny" / "tokenizer" / "tokenizer.json", file)
    values = json.loads(file.read_text())
    more = {"id": 999, "content": "<|more|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values["added_tokens"].append(more | flags)
    file.write_text(json.dumps(values))
    check_vocabulary(configs.load("tiny", [SMALL, "model.init=null", "model.path=model"]))
