"""Checks before a command starts anything: all faults are reported in one message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError, faults_of, refuse
from common.files import MANIFEST
from common.records import Problem
from common.text import nearest
from data_prep.benchmarks import sets as benchmarks
from data_prep.benchmarks.download import benchmark_of
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.output.folder import dataset_folder
from data_prep.output.write import HELD_OUT, SPARE
from data_prep.source.source import GENERATED, Source, matches
from trainer.doctor import vocabulary
from trainer.export.hub_upload import DATASET
from trainer.preflight import context, gpu, hub_answer, model_source
from trainer.run import frozen_config
from trainer.run.trained_from import dataset_identity

SOURCE = "data.source="
LOCAL_FILES = "; local files are given by a pattern such as data.source='DIR/*.jsonl'"


def before_data(config: DictConfig) -> None:
    """Raises UserError for every fault that would stop the build of the recipe's dataset; checks
    nothing if the dataset is built.
    """
    refuse(faults_of(_of_data(config)))


def before_training(config: DictConfig) -> None:
    """Raises UserError for every fault that would stop training, or later the evaluation of its
    model. Under Slurm the first rank reports them.
    """
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    checks: list[Callable[[], object]] = [
        partial(frozen_config.check, config),
        partial(dataset_identity, config),
        partial(gpu.check, config.device),
        partial(model_source.check, config),
        partial(vocabulary.check, config),
    ]
    # Without its problems an evaluation is not part of this line.
    problems = [] if faults_of([partial(_problems, config)]) else _problems(config)
    refuse(faults_of([*checks, partial(context.check, config, problems)]))


def before_line(config: DictConfig) -> None:
    """Raises UserError for every fault that would stop the data stage, the training or the
    evaluations.
    """
    found: list[Problem] = []
    checks: list[Callable[[], object]] = [
        partial(frozen_config.check, config),
        partial(gpu.check, config.device),
        partial(model_source.check, config),
        partial(vocabulary.check, config),
        *_of_data(config, with_model=False),
        lambda: found.extend(_problems(config)),
        lambda: context.check(config, found),
    ]
    refuse(faults_of(checks))


def before_prefetch(config: DictConfig) -> None:
    """Raises UserError for everything that the hub does not have, or when the hub does not
    answer.
    """
    data = config.data
    source = Source(data.source, data.hub_config, data.revision, data.split)
    checks: list[Callable[[], object]] = [partial(model_source.check, config)]
    if source.is_hub:
        checks.append(partial(_dataset_on_hub, data.source, data.revision))
    folder = Path(config.eval.benchmarks)
    missing = [
        name
        for name in benchmarks.expand([*config.eval.sets, *data.decontaminate])
        if folder != dataset_folder(config) and not (folder / f"{name}.jsonl").exists()
    ]
    checks += [partial(benchmark_of, name, folder) for name in missing]
    if missing and not source.is_hub and not faults_of(checks):
        name = missing[0]  # whoever has one has all
        checks.append(partial(_dataset_on_hub, BENCHMARKS[name].hub, None, f"benchmark {name}: "))
    refuse(faults_of(checks))


def _of_data(config: DictConfig, with_model: bool = True) -> Iterator[Callable[[], object]]:
    if (dataset_folder(config) / MANIFEST).exists():
        return
    data = config.data
    source = Source(data.source, data.hub_config, data.revision, data.split)
    in_folder = Path(config.model.path).is_dir()
    if with_model and config.model.tokenizer == "model" and not in_folder:
        yield partial(model_source.check, config)
    if with_model:
        yield partial(vocabulary.check, config)
    if source.is_hub:
        yield partial(_dataset_on_hub, data.source, data.revision)
    elif data.source not in GENERATED:
        yield partial(matches, data.source)
    if data.source == "synthetic" and data.synth.backend == "local":
        yield partial(gpu.check_engines, config.device)
        yield partial(model_source.check_path, data.synth.model, None, "data.synth.model=")
    if data.decontaminate:
        yield partial(_benchmarks, config, "data.decontaminate", data.decontaminate)


def _dataset_on_hub(name: str, revision: str | None, prefix: str = SOURCE) -> None:
    if re.fullmatch("[0-9a-f]{40}", revision or ""):
        return  # files of a full commit may have been downloaded before
    try:
        hub_answer.check(name, revision, DATASET)
    except UserError as e:
        local = "" if prefix != SOURCE else LOCAL_FILES
        raise UserError(f"{prefix}{name}{e}{local}{nearest(name, GENERATED)}") from e


def _problems(config: DictConfig) -> list[Problem]:
    """Returns the problems of the recipe's evaluation; empty if they are the held-out ones of a
    dataset that is not built yet. Raises UserError when a set is missing.
    """
    folder, sets = Path(config.eval.benchmarks), list(config.eval.sets)
    if folder == dataset_folder(config) and not (folder / MANIFEST).exists():
        own = [Path(HELD_OUT).stem, Path(SPARE).stem]
        if wrong := [name for name in sets if name not in own]:
            raise UserError(
                f"{folder} will have the sets {' and '.join(own)} when the dataset is built, not "
                f"{', '.join(wrong)}{nearest(wrong[0], own)}"
            )
        return []
    return benchmarks.load(folder, sets, config.eval.limit)


def _benchmarks(config: DictConfig, key: str, sets: Sequence[str]) -> None:
    try:
        benchmarks.load(Path(config.eval.benchmarks), list(sets), None, key)
    except UserError as e:
        raise UserError(f"{key}: {e}") from e
