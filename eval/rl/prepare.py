"""A start of RL from a checkpoint: the problems that it solves now and then, in verl's form, with configuration.

Two calls with an evaluation between them. The first writes the run's pool; the evaluation samples it as RL will
sample, on the GPUs; the second keeps the problems that had right and wrong rollouts.
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
    write_text,
    writer,
)
from common.records import Problem
from data_prep.benchmarks import sets
from data_prep.output.write import HELD_OUT
from data_prep.tokenizer import chat, tokenizers
from eval import evaluate
from eval.grading.metrics import TOTAL
from eval.report.rl_readiness import GROUP, enough, outcomes
from eval.results import evaluation as evaluations
from eval.results.evaluation import RL_POOL, Evaluation
from eval.rl import grpo, pool, prompts
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete
from trainer.run.trained_from import dataset_identity

OWN = ("eval.sets", "eval.benchmarks")
"""Keys that the preparation sets itself."""


@dataclass(frozen=True)
class Prepared:
    """How far the preparation came."""

    folder: Path | None
    """With configuration, prompts and script; None while the pool is not evaluated."""
    command: str
    """What to run next: the script, or that evaluation."""
    counts: str


def prepare(
    run: Run,
    config: DictConfig,
    step: int,
    overrides: Sequence[str] = (),
    file: Path | None = None,
    count: int | None = None,
) -> Prepared:
    """Prepares RL from the export of ``step`` as far as it can; what was made of the same files is kept.

    ``file`` and ``count`` choose the pool (see ``pool.build``). Group size, temperature, top-p and budget are the
    pool's evaluation's: by default ``GROUP`` rollouts at temperature 1 and top-p 1, for which verl's policy gradient
    is exact, and the run's budget; ``overrides`` of mutable keys change them (``eval.rollouts=16``), and say where RL
    is meant to run (``cluster.nodes=1``).

    Raises UserError when the export or its dataset is not there, when an override is of ``OWN``, as ``pool.build``
    does, and when too few problems have right and wrong rollouts.
    """
    if config.data.answer_style != "boxed":
        raise UserError(f"{run.root} answers in the style {config.data.answer_style}: the reward for RL reads boxes")
    _check_same_dataset(run, config, step)
    folder = pool.folder_of(run)
    _check_not_own(overrides, run, step)
    sampling = ["eval.limit=null", f"eval.rollouts={GROUP}", "eval.temperature=1.0", "eval.top_p=1.0"]
    given = [*sampling, *overrides, f"eval.benchmarks={folder}", f"eval.sets=[{RL_POOL}]"]
    words = list({word.partition("=")[0]: word for word in given}.values())
    probe = configs.amend(config, words)
    if probe.eval.rollouts < 2 or not probe.eval.temperature:
        raise UserError("RL compares rollouts of one prompt: eval.rollouts must be 2 or more, eval.temperature above 0")
    pool.build(run, config, file, count)
    planned = evaluate.plan(probe, run, f"step_{step}")
    made = read_json(folder / MANIFEST)
    known = f"{made['funnel']['kept']:,} problems in {folder}, {made['in_sft']:,} of them also SFT rows"
    if not is_complete(planned.folder):
        return Prepared(None, shlex.join(["warmstart", "eval", str(run.root), str(step), *words]), known)
    origin = _origin(run, step, probe, planned)
    target = run.rl / f"step_{step}-{sha256_json(origin)[:8]}"
    with writer(run.rl / "lock"):
        if not is_complete(target):
            with whole_folder(target) as partial:
                filled = _fill(partial, target, run, step, config, probe, planned)
                write_json(partial / MANIFEST, origin | filled)
    counts = read_json(target / MANIFEST)
    text = (
        f"{counts['mixed']:,} have right and wrong rollouts, {counts['in_sft']:,} of these also SFT rows; "
        f"left out are {counts['never']:,} never and {counts['always']:,} always solved"
    )
    return Prepared(target, shlex.join(["bash", str(target / grpo.SCRIPT)]), f"{known}\n{text}")


def _check_same_dataset(run: Run, config: DictConfig, step: int) -> None:
    export = run.export(step)
    if not is_complete(export):
        there = ", ".join(map(str, run.exports)) or "none"
        raise UserError(f"{run.root} has no export of step {step} (there: {there}): warmstart export {run.root} STEP")
    if read_json(export / MANIFEST)["dataset"] != dataset_identity(config):
        raise UserError(f"step {step} was trained on another build of {config.data.name}: restore that, or train anew")


def _check_not_own(overrides: Sequence[str], run: Run, step: int) -> None:
    given = {override.partition("=")[0] for override in overrides}
    if own := [key for key in OWN if key in given]:
        raise UserError(
            f"{own[0]} cannot be set here: what is sampled is the run's pool ({pool.folder_of(run)}), which leaves out "
            "every benchmark of the recipe and of the run's evaluations; choose its problems with --pool FILE, and "
            f"evaluate benchmarks with warmstart eval {run.root} {step} {own[0]}=.."
        )


def _origin(run: Run, step: int, probe: DictConfig, planned: evaluate.Plan) -> dict[str, Any]:
    """Everything that a preparation is made of."""
    return {
        "step": step,
        "config": sha256_json(configs.own_values(probe, run.config)),
        "model": sha256_file(run.export(step) / MANIFEST),
        "pool": sha256_file(pool.folder_of(run) / MANIFEST),
        # By its files: grading to the same end again makes no other start.
        "evaluation": {planned.folder.name: read_json(planned.folder / MANIFEST)["files"]},
    }


def _fill(
    folder: Path, target: Path, run: Run, step: int, config: DictConfig, probe: DictConfig, planned: evaluate.Plan
) -> dict[str, Any]:
    """Fills ``folder``, which becomes ``target``, but for the manifest, whose own part is returned."""
    source = Path(probe.eval.benchmarks)
    in_sft = {line["id"]: line["in_sft"] for line in read_jsonl(source / f"{RL_POOL}.jsonl")}
    evaluation = evaluations.read(planned.folder)
    tally = outcomes(evaluation)
    mixed = [p for p in evaluation.problems if 0 < tally[p.set, p.id][0] < tally[p.set, p.id][1]]
    facts = {
        p.id: {"right": tally[p.set, p.id][0], "rollouts": tally[p.set, p.id][1], "in_sft": in_sft[p.id]} for p in mixed
    }
    held_out = sets.load_file(Path(config.data.dir) / config.data.name / HELD_OUT, Path(HELD_OUT).stem)
    prompt = _longest(run.export(step), [*mixed, *held_out])
    context = read_json(run.export(step) / "config.json")["max_position_embeddings"]
    start = grpo.Start(
        name=f"{run.name}-{target.name}",
        folder=target.resolve(),
        model=run.export(step).resolve(),
        problems=len(mixed),
        prompt=prompt,
        response=min(_budget(evaluation, mixed), context - prompt),
        sampling=planned.settings,
    )
    write_text(folder / grpo.CONFIG, grpo.config_text(start, probe, evaluate.sampling(config)))
    prompts.write(folder / grpo.TRAIN, mixed, facts)
    prompts.write(folder / grpo.VALIDATION, held_out, {})
    write_text(folder / grpo.SCRIPT, grpo.script_text(start))
    return {
        "never": sum(right == 0 for right, _ in tally.values()),
        "mixed": len(mixed),
        "always": sum(right == made for right, made in tally.values()),
        "in_sft": sum(in_sft[p.id] for p in mixed),
        "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir())},
        "versions": provenance.versions(),
        "git": provenance.git_commit(),
    }


def _budget(evaluation: Evaluation, problems: Sequence[Problem]) -> int:
    """Tokens that are enough for these problems of a complete evaluation; others may be solved in far less."""
    wanted = {(p.set, p.id) for p in problems}
    rollouts = evaluation.rollouts
    right = [rollouts[key].tokens for key, grade in evaluation.grades.items() if grade.exact and key[:2] in wanted]
    # Each problem has as many rollouts, so that their number goes with the accuracy.
    steps = (budget for budget, _ in evaluation.figures[TOTAL]["by_budget"])
    return enough({"by_budget": [[budget, sum(tokens <= budget for tokens in right)] for budget in steps]})


def _longest(model: Path, problems: Sequence[Problem]) -> int:
    """Tokens of the longest prompt."""
    tokenizer = tokenizers.load(model)
    return max(len(chat.encode_prompt(tokenizer, p.problem)) for p in problems)
