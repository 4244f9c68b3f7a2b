"""A recipe's dataset: translates its keys to data_prep's settings and, if a model writes the
problems, chooses that backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, read_json
from common.records import Problem
from data_prep import build as stage
from data_prep.output.folder import dataset_folder
from data_prep.rows.map_shard import RowSettings
from data_prep.source.source import Source
from data_prep.synth import writer
from data_prep.synth.anthropic_batches import Batches
from data_prep.synth.budget import Budget
from data_prep.synth.generation import Backend, Generation
from data_prep.synth.local_model import Local
from data_prep.tokenizer import tokenizers
from data_prep.tokenizer.prompt import BARE

ROWS = (
    "clean",
    "verifier",
    "trace_choice",
    "max_chars",
    "max_length",
    "seed",
    "answer_style",
    "filters",
    "prompt",
    "system",
)
GENERATION = (
    "seed_rows",
    "examples",
    "problems",
    "per_request",
    "backend",
    "model",
    "temperature",
    "max_tokens",
)


def build(config: DictConfig) -> tuple[Path, dict[str, int], bool]:
    """Returns (the dataset's folder, rows by split, whether it was built now). Raises as
    ``data_prep.build.build`` does.
    """
    data = config.data
    folder = dataset_folder(config)
    generation, backend = (
        (_generation(config), _backend(config)) if data.source == "synthetic" else (None, None)
    )
    settings = stage.Settings(
        source=Source(
            data.source,
            data.hub_config,
            data.revision,
            data.split,
            generator=dict(data.arithmetic),
            generation=generation,
            backend=backend,
        ),
        rows=RowSettings(
            columns=None if data.columns is None else dict(data.columns),
            question_types=None if data.question_types is None else tuple(data.question_types),
            min_think_tokens=data.min_think_tokens,
            **{key: data[key] for key in ROWS},
        ),
        tokenizer=config.model.tokenizer,
        model=config.model.path,
        model_revision=config.model.revision,
        benchmarks=Path(config.eval.benchmarks),
        decontaminate=tuple(data.decontaminate),
        **{key: data[key] for key in ("train_rows", "test_rows", "max_bad_records", "spare_share")},
    )
    workers = stage.Workers(data.engine, data.processes)
    built = stage.build(folder, settings, workers, _facts(config))
    return folder, read_json(folder / MANIFEST)["rows"], built


def _facts(config: DictConfig) -> dict[str, Any]:
    data = config.data
    licence = {} if data.license is None else {"license": data.license}
    written = data.source == "synthetic"
    return licence | (writer.facts(data.synth.backend, data.synth.model) if written else {})


def _generation(config: DictConfig) -> Generation:
    data, synth = config.data, config.data.synth
    folder = Path(data.dir) / f"{data.name}-generated"
    return Generation(
        folder, Path(synth.seeds), seed=data.seed, **{key: synth[key] for key in GENERATION}
    )


def _backend(config: DictConfig) -> Backend:
    synth = config.data.synth
    if synth.backend == "anthropic":
        budget = Budget(synth.usd_per_million_input, synth.usd_per_million_output, synth.max_usd)
        return Batches(synth.model, synth.max_tokens, budget)

    def generate(problems: Sequence[Problem], folder: Path) -> None:
        from eval.generation.generate import generate as generator
        from eval.generation.settings import EngineSettings, Model, SamplingSettings

        tokenizer = folder / "tokenizer"
        tokenizers.save_from_model(synth.model, None, tokenizer)
        generator(
            problems,
            folder,
            Model(synth.model, tokenizer, config.eval.dtype),
            BARE,
            SamplingSettings(
                rollouts=1,
                temperature=synth.temperature,
                top_p=1.0,
                max_tokens=synth.max_tokens,
                seed=config.data.seed,
            ),
            EngineSettings.from_config(config),
        )

    return Local(generate)
