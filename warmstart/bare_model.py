"""The evaluation of a model that belongs to no run: creates a run for it and chooses device and
budget unless they are given.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from common.errors import UserError, faults_of, refuse
from common.files import whole_folder
from common.records import Problem
from data_prep.benchmarks import sets as benchmarks
from data_prep.tokenizer import tokenizers
from eval.generation import generate
from eval.generation.settings import Model
from trainer.preflight import context, gpu, model_source
from trainer.recipe import load as configs
from trainer.recipe import site
from trainer.run import frozen_config
from trainer.run.folder import Run
from warmstart import stages

DEVICE, BUDGET = "device", "eval.max_tokens"
GIVES_BUDGET = {BUDGET, "eval.protocol"}


def start(target: str, label: str | None, overrides: Sequence[str]) -> tuple[Run, DictConfig]:
    """Returns the run of the model at ``target``, which is started if it does not exist yet, and
    its configuration. Prints the chosen values.

    Raises UserError, and leaves no files, when ``target`` is not a model, ``label`` is not base, or
    the evaluation cannot run here.
    """
    if not Path(target).exists() and not model_source.is_on_hub(target):
        model_source.check_path(target, None)  # it is a slip: nothing else matters
    given = {word.partition("=")[0] for word in (*site.overrides(), *overrides)}
    chosen = []
    if DEVICE not in given and not gpu.elsewhere():
        chosen.append(f"{DEVICE}={'cuda' if gpu.has_gpu() else 'cpu'}")
    load = partial(configs.for_model, target)
    config = frozen_config.choose(load, [*chosen, *overrides], without="data.")[1]
    started = frozen_config.check(config).config.exists()
    problems: list[Problem] = []
    checks: list[Callable[[], object]] = (
        []
        if started
        else [
            partial(model_source.check_path, target, config.model.revision),
            partial(gpu.check_engines, config.device),
        ]
    )
    checks.append(partial(_check_label, target, label))
    checks.append(lambda: problems.extend(_problems(config)))
    refuse(faults_of(checks))
    tokenizer = Path(config.verl.model.tokenizer_path)
    with TemporaryDirectory() as folder:
        trial = tokenizer if tokenizer.exists() else Path(folder) / tokenizer.name
        tokenizers.save_from_model(config.model.path, config.model.revision, trial)
        room = _room(config, problems, trial)
        if room is not None and 0 < room < config.eval.max_tokens and not given & GIVES_BUDGET:
            chosen.append(f"{BUDGET}={room}")
            config = configs.amend(config, chosen[-1:])
        if not started:
            values = config.model
            model = Model(values.path, trial, config.eval.dtype, values.revision, values.context)
            asked = (context.prompt_of(config), config.eval.max_tokens, config.device)
            generate.check(problems, model, *asked)
        if chosen:
            stages.say(f"{target}: {_reasons(chosen)}")
        if trial != tokenizer:
            with whole_folder(tokenizer) as partial_folder:
                shutil.copytree(trial, partial_folder, dirs_exist_ok=True)
    return frozen_config.start(config), config


def _room(config: DictConfig, problems: Sequence[Problem], tokenizer: Path) -> int | None:
    """Returns the tokens that the longest prompt leaves in the model's context, 0 or less if it
    does not fit; None if the context is not known.
    """
    limit = model_source.context(config)
    sizes = context.lengths(config, problems, tokenizer)
    return None if limit is None else context.room(sizes, limit)[0]


def _reasons(chosen: Sequence[str]) -> str:
    reasons = {DEVICE: "of this machine", BUDGET: "of the model's context, less the longest prompt"}
    return ", ".join(f"{word} ({reasons[word.partition('=')[0]]})" for word in chosen)


def _check_label(target: str, label: str | None) -> None:
    if label not in (None, "base"):
        raise UserError(f"{target} is a model, not a run, so it has no {label}: leave that out")


def _problems(config: DictConfig) -> list[Problem]:
    return benchmarks.load(Path(config.eval.benchmarks), list(config.eval.sets), config.eval.limit)
