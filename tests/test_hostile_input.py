"""What others made cannot run code: models with code of their own, pickles, YAML tags, texts for a
terminal (SECURITY.md).
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.files import read_json
from common.records import Problem
from common.text import printable
from data_prep.output.show_row import show
from data_prep.tokenizer import token_files, tokenizers
from data_prep.tokenizer.prompt import BARE
from eval.generation.generate import check
from eval.generation.settings import Model
from tests.conftest import ROOT
from tests.test_architecture import MODULES
from trainer.recipe import load as configs
from warmstart.cli import main

RUNS_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads"}
"""Calls that run what they are given. ``torch.compile`` and ``re.compile`` have another name."""
PICKLES = {"torch.load", "numpy.load", "np.load"}
YAML = {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}


def calls(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each call of a module: the function as written, and its constant keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            constants = {
                word.arg: word.value.value
                for word in node.keywords
                if word.arg and isinstance(word.value, ast.Constant)
            }
            yield ast.unparse(node.func), constants


def dangers(source: str) -> list[str]:
    """Returns the calls of a module that could run code from what they read."""
    found = []
    for name, words in calls(source):
        owner, _, method = name.rpartition(".")
        from_auto = owner.startswith("Auto") and method in ("from_pretrained", "from_config")
        if (
            name in RUNS_CODE | YAML
            or (name in PICKLES and words.get("weights_only") is not True)
            or words.get("shell") is True
            or words.get("allow_pickle") is True
            or words.get("trust_remote_code", False) is not False
            or (from_auto and "trust_remote_code" not in words)
        ):
            found.append(name)
    trusting = re.findall(r"['\"]trust_remote_code['\"]: (?!False)", source)
    return found + trusting


def test_the_tests_that_hold_the_promises_are_there() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/]+\.py", page))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_module_runs_code_from_what_it_reads() -> None:
    found = {str(p.relative_to(ROOT)): dangers(p.read_text(encoding="utf-8")) for p in MODULES}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "AutoConfig.from_pretrained(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "LLM(model, trust_remote_code=True)",
        "arguments = {'trust_remote_code': True}",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "yaml.load(text)",
        "subprocess.run(words, shell=True)",
        "eval(text)",
    ],
)
def test_a_planted_danger_is_found(source: str) -> None:
    assert len(dangers(source)) == 1


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    tokenizers.trained(["What is 1 + 1?", "<think>\n2\n</think>\n\n\\boxed{2}"]).save_pretrained(
        str(folder)
    )
    return folder


def test_the_code_of_a_model_is_never_run(tmp_path: Path, tokenizer: Path) -> None:
    """Nor is a person asked whether it may, as transformers does by itself."""
    marker, folder = tmp_path / "executed", tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass EvilConfig: pass\n")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    problem = Problem("1", "What is 1 + 1?", "2", "sums")
    with pytest.raises(UserError, match=r"no model at .+ custom code"):
        check([problem], Model(str(folder), tokenizer, "auto"), BARE, 8, "cpu")
    assert not marker.exists()


def test_a_recipe_cannot_let_verl_run_it() -> None:
    assert configs.load("tiny").verl.model.trust_remote_code is False
    with pytest.raises(UserError, match=r"verl\.model\.trust_remote_code"):
        configs.load("tiny", ["verl.model.trust_remote_code=true"])


def test_a_tag_in_a_recipe_calls_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, recipe = tmp_path / "executed", tmp_path / "mine.yaml"
    recipe.write_text(
        f"defaults: [tiny, _self_]\nname: !!python/object/apply:os.mkdir ['{marker}']\n"
    )
    assert main(["inspect", str(recipe)]) == 2
    assert "line 2" in capsys.readouterr().err
    assert not marker.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "7" * 5_000, "{", "\ud800"])
def test_json_that_breaks_the_parser_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON"):
        read_json(path)


def test_a_row_gives_no_orders_to_the_terminal(tmp_path: Path, tokenizer: Path) -> None:
    text = "What\x1b]0;owned\x07 is\u202e 1 + 1?\n\tHäh"
    assert printable(text) == "What\\x1b]0;owned\\x07 is\\u202e 1 + 1?\n\tHäh"
    ids = tokenizers.load(tokenizer).encode(text)
    row = {"id": "a", "input_ids": [*ids, ids[0]], "prompt_len": len(ids), "length": len(ids) + 1}
    (tmp_path / "tokens").mkdir()
    path = tmp_path / "tokens" / "train.arrow"
    token_files.write_table(path, [row], token_files.schema_of(token_files.COLUMNS))
    assert "What\\x1b]0;owned\\x07 is\\u202e" in show(tmp_path, 0, "train", colour=False)
