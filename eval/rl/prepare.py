"""Prepares RL from a checkpoint: selects the problems it solves in some rollouts but not all, and
configures verl.

This takes two calls with an evaluation between them. The first call writes the run's pool; the
evaluation samples it on the GPUs as RL will sample; the second call keeps the problems with both
right and wrong rollouts.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import (
    MANIFEST,
    read_json,
    read_jsonl,
    sha256_file,
    sha256_json,
    whole_folder,
    write_json,
    write_lock,
    write_text,
)
from common.records import Problem
from data_prep import rules
from data_prep.benchmarks import sets
from data_prep.output.folder import dataset_folder
from data_prep.output.write import HELD_OUT
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import Prompt
from eval import evaluate
from eval.grading.metrics import tallies
from eval.report.rl_readiness import GROUP
from eval.results import evaluation as evaluations
from eval.results.evaluation import RL_POOL
from eval.rl import cost, forecast, grpo, pool, prompts
from trainer.batching.flops import Shape
from trainer.preflight.context import prompt_of
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete, lock_of
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart
from trainer.run.trained_from import dataset_identity

OWN = ("eval.sets", "eval.benchmarks")
"""Keys that ``prepare`` sets itself."""
FORMAT = 3
"""Version of the files; raised when older files do not run any more."""


@dataclass(frozen=True)
class Prepared:
    """The state of the preparation after a call."""

    folder: Path | None
    """Folder of configuration, prompts and script; None while the pool is not evaluated."""
    command: str
    """The command to run next: the script, or the evaluation of the pool."""
    counts: str
    """Numbers of problems, as text."""
    cost: str
    """The command's cost, as far as it is known."""


def prepare(
    run: Run,
    config: DictConfig,
    step: int,
    overrides: Sequence[str] = (),
    file: Path | None = None,
    count: int | None = None,
) -> Prepared:
    """Prepares RL from the export of ``step`` as far as possible; files made from the same inputs
    are kept.

    ``file`` and ``count`` choose the pool (see ``pool.build``). Group size, temperature, top-p and
    budget are those of the pool's evaluation: by default ``GROUP`` rollouts at temperature 1 and
    top-p 1, for which verl's policy gradient is exact, and the run's budget. ``overrides`` of
    mutable keys change them (``eval.rollouts=16``), and describe the cluster that RL will run on
    (``cluster.nodes=1``).

    Raises UserError when the run's answers are not boxed; when the export or its dataset is
    missing; when an override is in ``OWN``; when there are fewer than 2 rollouts, the temperature
    is 0, or answers are prefilled; when the pool was graded under another version of the rules than
    the reward's; when too few problems have both right and wrong rollouts; when no settings fit the
    GPUs; and as ``pool.build`` does.
    """
    if config.data.answer_style != "boxed":
        raise UserError(
            f"{run.root} has data.answer_style={config.data.answer_style}, but the reward for RL "
            "reads boxed answers: prepare RL from a run with data.answer_style=boxed"
        )
    _check_same_dataset(run, config, step)
    folder = run.rl_pool
    _check_not_own(overrides, run, step)
    sampling = [
        "eval.limit=null",
        f"eval.rollouts={GROUP}",
        "eval.temperature=1.0",
        "eval.top_p=1.0",
    ]
    given = [*sampling, *overrides, f"eval.benchmarks={folder}", f"eval.sets=[{RL_POOL}]"]
    # The last value of a key counts.
    words = list({word.partition("=")[0]: word for word in given}.values())
    probe = configs.amend(config, words)
    if probe.eval.rollouts < 2 or not probe.eval.temperature:
        raise UserError(
            "RL compares rollouts of one prompt: eval.rollouts must be 2 or more, eval.temperature "
            "above 0"
        )
    if probe.eval.extractor not in (None, "boxed"):
        raise UserError(
            f"eval.extractor={probe.eval.extractor}, but the reward for RL reads boxed answers: "
            "leave it out"
        )
    if config.data.system and not prompt_of(probe).system:
        raise UserError(
            "the exported chat template adds the system turn of training (data.system) to every "
            "prompt of RL: leave out eval.system"
        )
    if probe.eval.prefill:
        raise UserError(
            "RL starts each answer at its first token: eval.prefill must be empty (eval.prefill='')"
        )
    pool.build(run, config, file, count)
    planned = evaluate.plan(probe, run, ModelLabel(step))
    made = read_json(folder / MANIFEST)
    known = (
        f"{made['funnel']['kept']:,} problems in {folder}, {made['in_sft']:,} of them also SFT rows"
    )
    if not is_complete(planned.folder):
        rollouts = made["funnel"]["kept"] * probe.eval.rollouts
        return Prepared(
            None,
            shlex.join(["warmstart", "eval", str(run.root), str(step), *words]),
            known,
            cost.of_evaluation(run, step, rollouts),
        )
    origin = _origin(run, step, probe, planned)
    target = run.rl_start(step, sha256_json(origin))
    with write_lock(lock_of(run.rl)):
        if not is_complete(target):
            with whole_folder(target) as partial:
                filled = _fill(partial, target, run, step, config, probe, planned)
                write_json(partial / MANIFEST, origin | filled)
    counts = read_json(target / MANIFEST)
    text = (
        f"{counts['mixed']:,} have both right and wrong rollouts ({counts['in_sft']:,} of these "
        f"are also SFT rows); {counts['never']:,} are left out because they were never solved, "
        f"{counts['always']:,} because they always were"
    )
    start = RlStart(target)
    spent = cost.of_training(run, step, start, counts)
    return Prepared(target, shlex.join(["bash", str(start.script)]), f"{known}\n{text}", spent)


def _check_same_dataset(run: Run, config: DictConfig, step: int) -> None:
    export = run.export(step)
    if not is_complete(export):
        there = ", ".join(map(str, run.exports)) or "none"
        raise UserError(
            f"{run.root} has no export of step {step} (available: {there}): warmstart export "
            f"{run.root} STEP"
        )
    if read_json(export / MANIFEST)["dataset"] != dataset_identity(config):
        raise UserError(
            f"step {step} was trained on another build of {config.data.name}: restore that build, "
            "or train again"
        )


def _check_not_own(overrides: Sequence[str], run: Run, step: int) -> None:
    given = {override.partition("=")[0] for override in overrides}
    if own := [key for key in OWN if key in given]:
        raise UserError(
            f"{own[0]} cannot be set here: warmstart rl samples the run's pool "
            f"({run.rl_pool}), which has no problem of a benchmark of the recipe or of the "
            "run's evaluations. Choose other problems with --pool FILE; evaluate benchmarks with "
            f"warmstart eval {run.root} {step} {own[0]}=.."
        )


def _origin(run: Run, step: int, probe: DictConfig, planned: evaluate.Plan) -> dict[str, Any]:
    """Returns everything that a preparation depends on; its hash names the folder."""
    return {
        "step": step,
        "format": FORMAT,
        "config": sha256_json(configs.own_values(probe, run.config)),
        "model": sha256_file(run.export(step) / MANIFEST),
        "pool": sha256_file(run.rl_pool / MANIFEST),
        # Hashes of its files: grading again with the same result keeps the same folder.
        "evaluation": {planned.folder.name: read_json(planned.folder / MANIFEST)["files"]},
    }


def _fill(
    folder: Path,
    target: Path,
    run: Run,
    step: int,
    config: DictConfig,
    probe: DictConfig,
    planned: evaluate.Plan,
) -> dict[str, Any]:
    """Writes all files but the manifest into ``folder``, which becomes ``target``; returns the
    manifest's own part.
    """
    source = Path(probe.eval.benchmarks)
    in_sft = {line["id"]: line["in_sft"] for line in read_jsonl(source / f"{RL_POOL}.jsonl")}
    evaluation = evaluations.read(planned.folder)
    if evaluation.grader != rules.ANSWERS:
        raise UserError(
            f"{planned.folder} was graded under version {evaluation.grader} of the rules, but the "
            f"reward for RL has version {rules.ANSWERS}: warmstart grade {planned.folder}"
        )
    counts = tallies(evaluation.grades.values())
    mixed, facts = forecast.mixed(evaluation), {}
    for problem in mixed:
        tally = counts[problem.set, problem.id]
        facts[problem.id] = {
            "right": tally.right,
            "rollouts": tally.total,
            "in_sft": in_sft[problem.id],
        }
    held_out = sets.load_file(dataset_folder(config) / HELD_OUT, Path(HELD_OUT).stem)
    prompt = planned.settings.prompt
    longest = _longest(run.export(step), [*mixed, *held_out], prompt)
    model = read_json(run.export(step) / "config.json")
    start = grpo.Start(
        name=f"{run.name}-{target.name}",
        problems=len(mixed),
        prompt=longest,
        response=min(
            forecast.budget(evaluation, mixed), model["max_position_embeddings"] - longest
        ),
        sampling=planned.settings.sampling,
    )
    gpu = None
    if config.device != "cpu":
        measured = forecast.lengths(evaluation, mixed)
        gpu = forecast.settings(start, probe, Shape.of(model), measured)
    files = RlStart(folder)
    write_text(files.config, grpo.config_text(start, probe, evaluate.sampling(config), gpu))
    prompts.write(files.train, mixed, prompt, facts)
    prompts.write(files.validation, held_out, prompt, {})
    write_text(files.script, grpo.script_text(start))
    return {
        "never": sum(tally.right == 0 for tally in counts.values()),
        "mixed": len(mixed),
        "always": sum(tally.right == tally.total for tally in counts.values()),
        "in_sft": sum(in_sft[p.id] for p in mixed),
        "step_seconds": None if gpu is None else gpu.chosen.time.total,
        "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir())},
        "versions": provenance.versions(),
        "git": provenance.git_commit(),
    }


def _longest(model: Path, problems: Sequence[Problem], prompt: Prompt) -> int:
    """Returns the length of the longest prompt, in tokens."""
    tokenizer = tokenizers.load(model)
    return max(len(chat.encode_prompt(tokenizer, p, prompt)) for p in problems)
