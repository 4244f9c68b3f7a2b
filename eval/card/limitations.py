"""The limitations in a model card, derived from the run: its evaluations, its data, its method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from common.text import percent
from data_prep.rows.filters import FOREIGN_LETTERS
from eval.card.training_data import TrainingData
from eval.grading.metrics import TOTAL, answered
from eval.results.base_vs_sft import NEAR_ZERO, Comparison, Evaluation

FEW_PROBLEMS = 50
ONE_SEED = "This is one training run with one seed. Another seed would give other figures."
ALWAYS = (
    "It was trained only on problems with one answer that can be checked, not on proofs or open "
    "questions.",
    "Its reasoning can be wrong and still sound confident. Check its answers.",
)


def text(
    compared: Sequence[Comparison],
    data: TrainingData | None,
    config: DictConfig,
    rl: Mapping[str, Any] | None = None,
    other_seeds: bool = False,
) -> str:
    """Returns a Markdown list: limitations that follow from the figures, the data and the method,
    then those of every such model. ``data`` is None if the dataset is not known; ``rl`` says how an
    RL model was trained, from its export's manifest; ``other_seeds``: whether the card has the
    figures of replicates.
    """
    lines: list[str] = []
    for c in compared:
        lines += _format(c)
        if c.sft:
            lines += _of(c.sft)
    lines += _coverage([c.sft for c in compared if c.sft], data)
    if data:
        lines += _of_data(data, config, rl is not None)
    if rl:
        lines += _of_rl(rl)
    if config.train.lora_rank:
        lines.append(
            "Its adapters were trained on a base in 4 bits and then merged. Loading the merged "
            "weights in 4 bits rounds them again, which can change its accuracy."
        )
    if not other_seeds:
        lines.append(ONE_SEED)
    return "\n".join(f"- {line}" for line in (*lines, *ALWAYS))


def _format(compared: Comparison) -> Iterator[str]:
    if compared.base and compared.sft:
        before, after = _unanswered(compared.base), _unanswered(compared.sft)
        if before > after:
            yield (
                f"Part of the improvement is format: {percent(before)} of the base model's "
                f"rollouts gave no answer, but only {percent(after)} of this model's."
            )


def _of(sft: Evaluation) -> Iterator[str]:
    total = sft.figures[TOTAL]
    if hits := total["hit_budget"]:
        cut = total["states"].get("truncated", 0) / total["rollouts"]
        yield (
            f"{percent(hits)} of its rollouts hit the budget of "
            f"{sft.settings.sampling.max_tokens:,} tokens (the median rollout has "
            f"{total['tokens']['p50']:,}); {percent(cut)} had no answer by then and count as wrong."
        )
    for name, figures in sft.figures.items():
        if name == TOTAL:
            continue
        if figures["pass@1"] <= NEAR_ZERO:
            yield f"It solves almost nothing of {name}: pass@1 is {percent(figures['pass@1'])}."
        if figures["problems"] < FEW_PROBLEMS:
            count = figures["problems"]
            yield f"{name} has only {count} problems: read its figures with their intervals."


def _coverage(evaluations: Sequence[Evaluation], data: TrainingData | None) -> Iterator[str]:
    """Yields what the evaluations do not cover: other problems, and problems that may be in the
    training data.
    """
    sets: Mapping[str, str] = {k: v for e in evaluations for k, v in e.settings.benchmarks.items()}
    if not sets:
        yield "It has not been evaluated, so how well it solves problems is not known."
        return
    own = {name for name, content in sets.items() if data and content == data.held_out}
    if own == set(sets):
        yield (
            "It was evaluated only on held-out rows of its own dataset: how well it solves "
            "problems from elsewhere is not known."
        )
    elif len(sets) == 1:
        yield f"It was evaluated on {next(iter(sets))} only: other benchmarks were not tried."
    if data:
        unseen = sorted(sets.keys() - own - data.manifest["settings"]["benchmarks"].keys())
        if unseen:
            yield (
                f"The training rows were not compared with the problems of {', '.join(unseen)}, "
                "so they may contain some of them."
            )


def _of_rl(rl: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"RL rewarded the final answers of {rl['problems']:,} problems. It did not judge the "
        "reasoning, which need not support the answer."
    )
    yield (
        f"A rollout of RL had at most {rl['budget']:,} tokens: it was not rewarded for an answer "
        "that needs more."
    )


def _of_data(data: TrainingData, config: DictConfig, rl: bool) -> Iterator[str]:
    if data.writer:
        yield (
            f"A model wrote its training data: {data.writer.model}. Its rows can have "
            "mistakes of that model that the filters did not find."
        )
    if generator := data.source.get("generator"):
        yield (
            "Its training data has one kind of problem: sums of two numbers of "
            f"{generator['digits']} digits."
        )
    if not data.has_negative_answers:
        yield (
            "No training row has a negative number as its answer, so it may do worse on problems "
            "that do."
        )
    if data.has_only_whole_answers:
        yield (
            "The answer of every training row is a whole number, so it may do worse on problems "
            "with other answers."
        )
    longest = f"than {config.data.max_length:,} tokens, the problem included"
    if rl:
        yield f"No row of SFT has more {longest}."
    else:
        yield (f"No training row has more {longest}: it has not been trained to reason for longer.")
    yield (
        f"Rows whose solution has {FOREIGN_LETTERS} or more letters of a script such as Cyrillic, "
        "Arabic or Chinese were dropped: it has not been trained to reason in languages that use "
        "them."
    )


def _unanswered(evaluation: Evaluation) -> float:
    total = evaluation.figures[TOTAL]
    return 1 - answered(total) / total["rollouts"]
