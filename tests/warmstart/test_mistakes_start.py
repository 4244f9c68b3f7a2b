"""What would stop training or an evaluation later is told before anything starts: model, device,
context, benchmarks, hub.
"""

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from tests import hub
from tests.warmstart.conftest import CONTEXT, SMALL
from tests.warmstart.mistakes import Careless, tree
from trainer.preflight import gpu
from trainer.recipe import load as configs
from trainer.run.folder import Run
from warmstart import bare_model
from warmstart.cli import main

OWN = ("eval.benchmarks=sets", "eval.sets=[sums]")


def started(user: Careless, *words: str) -> Run:
    """The run of the tiny recipe, as a first attempt would have frozen it."""
    config = configs.load("tiny", [SMALL, *words])
    run = Run.of(config)
    configs.write(config, run.config)
    return run


def damage(model: Path, how: str) -> str:
    """Damages a model in one way; returns what is said of it."""
    file = model / "config.json"
    if how == "no folder":
        shutil.rmtree(model)
        return "neither a folder nor OWNER/NAME on the hub"
    if how == "a file":
        shutil.rmtree(model)
        model.write_text("")
        return "is a file: give the folder of a model"
    if how == "no config":
        file.unlink()
        return "is not a model: the folder has no config.json"
    if how == "no weights":
        (model / "model.safetensors").unlink()
        return "has no weights (*.safetensors)"
    file.write_text({"no JSON": "{", "a list": "[]", "no type": "{}"}[how])
    return {
        "no JSON": "config.json: not valid JSON",
        "a list": "config.json: not a JSON object",
        "no type": "config.json is not the configuration of a model: it has no model_type",
    }[how]


DAMAGES = ("no folder", "a file", "no config", "no weights", "no JSON", "a list", "no type")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize(
    "words",
    [
        ("train", "tiny", SMALL, "model.init=null", "model.path=model"),
        ("run", "tiny", SMALL, "model.init=null", "model.path=model"),
        ("eval", "model", *OWN),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_is_no_model(how: str, words: tuple[str, ...], user: Careless) -> None:
    said = damage(user.folder / "model", how)
    if words[0] == "eval":
        said = said.replace("neither a folder", "neither a run, a folder")
    assert said in user.only(*words)


def test_a_model_of_no_known_architecture_leaves_no_run(user: Careless) -> None:
    config = user.folder / "model" / "config.json"
    config.write_text('{"model_type": "quen3", "max_position_embeddings": 512}')
    assert "no model at model: " in user.only("eval", "model", *OWN)
    config.write_text('{"model_type": "qwen3", "max_position_embeddings": 9}')
    assert "leave that problem out" in user.only("eval", "model", *OWN)


@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_gpu_that_is_not_there(verb: str, user: Careless) -> None:
    said = user.only(verb, "tiny", SMALL, "device=cuda")
    assert said.startswith("device=cuda needs a GPU, and this machine has none (CUDA_VISIBLE")
    assert said.endswith("or on CPUs with device=cpu")


def test_a_gpu_that_is_not_there_for_an_evaluation(user: Careless) -> None:
    started(user, "model.init=null", "model.path=model")
    assert "device=cuda needs a GPU" in user.only("eval", "tiny", "base", "device=cuda")
    assert "device=cuda needs a GPU" in user.only("eval", "model", *OWN, "device=cuda")


def test_a_gpu_is_found_by_its_driver_or_is_rays(
    user: Careless, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not gpu.has_gpu()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 40960, 580.1, Disabled'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert not gpu.has_gpu()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu.has_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not gpu.has_gpu()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    gpu.check_engines("cuda")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(Exception, match="needs a GPU"):
        gpu.check_engines("cuda")


def test_a_budget_beyond_the_context_is_told_before_the_line_starts(user: Careless) -> None:
    # The tokenizer is there, so the longest prompt is known.
    room = CONTEXT - longest(user)
    for verb in ("train", "run"):
        said = user.only(verb, "tiny", SMALL, f"eval.max_tokens={room + 1}")
        assert said.endswith(f"but the model has {CONTEXT}: set eval.max_tokens={room} or less")
    started(user, "model.init=null", "model.path=model", *OWN)
    assert "need a context of" in user.only("eval", "tiny", "base", "eval.max_tokens=512")
    assert "need a context of" in user.only("eval", "model", *OWN, "eval.max_tokens=512")
    # Before the dataset is built a prompt is at least one token.
    shutil.rmtree(user.folder / "data")
    said = user.only("run", "tiny", "run.name=new", "eval.max_tokens=512")
    assert "eval.max_tokens=512 and a prompt do not fit the model, whose context is 512" in said


def longest(user: Careless) -> int:
    """Tokens of the longest prompt of tiny's evaluation."""
    from data_prep.benchmarks import sets
    from data_prep.tokenizer import chat, tokenizers
    from data_prep.tokenizer.prompt import BARE

    folder = user.folder / "data" / "tiny"
    encoder = tokenizers.load(folder / "tokenizer")
    problems = sets.load(folder, ["heldout"], None)
    return max(len(chat.encode_prompt(encoder, problem, BARE)) for problem in problems)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval.benchmarks=nowhere"], "nowhere is not a folder: set eval.benchmarks=DIR"),
        (["eval.benchmarks=sets"], "sets/heldout.jsonl does not exist (sets has sums)"),
        (["eval.benchmarks=sets", "eval.sets=[sum]"], "did you mean sums?"),
        (["eval.benchmarks=sets", "eval.sets=[aim2025]"], "did you mean aime2025?"),
        (["eval.benchmarks=sets", "eval.sets=[aime2025]"], "warmstart prefetch RECIPE"),
        (["eval.sets=[heldot]", "data.name=new"], "data/new will have the sets heldout and spare"),
        (["eval.sets=[heldot]", "data.name=new"], "did you mean heldout?"),
        (["data.decontaminate=[math50]", "data.name=new", *OWN], "data.decontaminate: sets/math50"),
        (
            ["data.decontaminate=[math50]", "data.name=new", *OWN],
            "choose one of these with data.decontaminate=[..]",
        ),
        (
            ["data.source=no/*.jsonl", "data.name=new", *OWN],
            "no/*.jsonl matches no file (relative paths begin in ",
        ),
        (["data.source=sets/sum.jsonl", "data.name=new", *OWN], "did you mean sets/sums.jsonl?"),
    ],
)
def test_a_missing_benchmark_or_source_is_told_before_the_line_starts(
    words: list[str], message: str, user: Careless
) -> None:
    assert message in user.only("run", "tiny", SMALL, *words)


def test_what_comes_together_is_told_together(user: Careless) -> None:
    words = ["device=cuda", "eval.benchmarks=nowhere", "eval.max_tokens=600"]
    head, *told = user.told("run", "tiny", SMALL, *words)
    assert head == "3 things have to be fixed:"
    assert [line.split()[0] for line in told] == ["device=cuda", "nowhere", "eval.max_tokens=600"]
    head, *told = user.told("train", "tiny", "data.name=none", *words[:1], "eval.max_tokens=600")
    assert head == "3 things have to be fixed:"
    assert "warmstart data tiny data.name=none device=cuda eval.max_tokens=600 builds" in told[0]


def test_a_start_that_fails_late_leaves_no_attempt(user: Careless) -> None:
    before = tree(user.folder)
    code = main(["train", "tiny", SMALL, "model.init=null", "model.path=model"])
    assert code == 2
    assert tree(user.folder) - before <= {"runs", "runs/tiny"}
    assert "no run at tiny" in user.only("status", "tiny")


def test_a_bare_model_gets_a_device_and_a_budget_that_fit(
    user: Careless, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = bare_model.start("model", None, OWN)
    said = capsys.readouterr().out
    assert (config.device, config.eval.max_tokens) == ("cpu", bare_room(user))
    assert said == (
        f"== model: device=cpu (of this machine), eval.max_tokens={bare_room(user)} (of the "
        "model's context, less the longest prompt)\n"
    )
    frozen = configs.read(run.config)
    assert (frozen.device, frozen.eval.max_tokens) == ("cpu", bare_room(user))
    # The same again, and what is given counts.
    assert bare_model.start("model", "base", OWN)[1] == config
    given = bare_model.start("model", None, [*OWN, "device=cpu", "eval.max_tokens=100"])[1]
    assert given.eval.max_tokens == 100
    assert capsys.readouterr().out.count("device=cpu (of") == 1
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert bare_model.start("model", None, OWN)[1].device == "cuda"


def bare_room(user: Careless) -> int:
    from data_prep.benchmarks import sets
    from data_prep.tokenizer import chat, tokenizers
    from data_prep.tokenizer.prompt import BARE

    encoder = tokenizers.load(user.folder / "model")
    problems = sets.load(user.folder / "sets", ["sums"], None)
    return CONTEXT - max(len(chat.encode_prompt(encoder, p, BARE)) for p in problems)


def test_a_model_that_the_hub_does_not_have_is_told_within_seconds(
    built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built / "sets", tmp_path / "sets")
    before = tree(tmp_path)
    files = {"config.json": json.dumps({"model_type": "qwen3"}).encode()}
    with hub.serving({"models/someone/else": files, "models/someone/data": {}}) as server:
        told = {
            name: hub.warm(tmp_path, server.url, "eval", name, *OWN, *words)
            for name, *words in (
                ("someone/base",),
                ("someone/data",),
                ("someone/else", "model.revision=v9", "device=cuda"),
            )
        }
        asked = len(server.requests)
    assert [done.returncode for done in told.values()] == [2, 2, 2], told
    assert "someone/base is not a model on the hub" in told["someone/base"].stderr
    assert "someone/data is not a model: it has no config.json" in told["someone/data"].stderr
    assert asked < 10
    assert tree(tmp_path) - before <= {p for p in tree(tmp_path) if p.startswith("hf")}


def test_a_hub_that_does_not_answer_is_told_within_seconds(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "sets", tmp_path / "sets")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        done = hub.warm(tmp_path, url, "eval", "someone/base", *OWN)
        seconds = time.monotonic() - begin
        source = hub.warm(tmp_path, url, "data", "tiny", "data.source=someone/rows")
        begin = time.monotonic()
        words = ("tiny", "eval.benchmarks=b", "eval.sets=[t0]")
        fetched = hub.warm(tmp_path, url, "prefetch", *words)
        assert fetched.returncode == 2 and time.monotonic() - begin < 60
    assert "benchmark aime2025: math-ai/aime25 is not on this machine, and the" in fetched.stderr
    assert done.returncode == source.returncode == 2
    assert f"someone/base is not on this machine, and the hub ({url}) cannot be" in done.stderr
    assert "data.source=someone/rows is not on this machine, and the hub" in source.stderr
    assert "data.source='DIR/*.jsonl'" in source.stderr
    assert len(done.stderr.splitlines()) == len(source.stderr.splitlines()) == 1
    assert seconds < 60  # five of them on a quiet machine, and the start of Python
    offline = hub.warm(tmp_path, url, "eval", "someone/base", *OWN, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "HF_HUB_OFFLINE is set" in offline.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()
