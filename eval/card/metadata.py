"""A model card's YAML metadata, which the hub reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from eval.card import method
from eval.card.training_data import TrainingData
from eval.report import tables
from eval.results.base_vs_sft import Comparison

METHODS = {False: ("rl-warm-start",), True: ("rl", "grpo")}
"""Whether the model is an RL model -> the model's tags on the hub."""


def metadata(
    config: DictConfig,
    name: str,
    data: TrainingData | None,
    compared: Sequence[Comparison],
    rl: bool = False,
) -> Any:
    """Returns the metadata as huggingface_hub's ModelCardData; ``data`` is None if the dataset is
    not known, ``rl`` is true for an RL model.
    """
    from huggingface_hub import ModelCardData

    base = method.hub_base(config)
    tags = ["math", "reasoning", "chain-of-thought", "sft"]
    return ModelCardData(
        language="en",
        license=config.model.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base,
        # The weights are whole, so also a QLoRA is not an `adapter`.
        base_model_relation="finetune" if base else None,
        datasets=data.hub_names or None if data else None,
        tags=[*tags, method.TAGS[bool(config.train.lora_rank)], *METHODS[rl], "verl"],
        model_name=name,
        eval_results=_results(compared) or None,
    )


def _results(compared: Sequence[Comparison]) -> list[Any]:
    """Returns pass@1 and, with several rollouts, maj@n of each evaluated set, as the hub's
    EvalResult.
    """
    from huggingface_hub import EvalResult

    results = []
    for sft in (c.sft for c in compared if c.sft):
        sampling = sft.settings.sampling
        conditions = {
            "temperature": sampling.temperature,
            # Greedy decoding does not use it.
            **({"top_p": sampling.top_p} if sampling.temperature else {}),
            "max_tokens": sampling.max_tokens,
        }
        several = f"{sampling.rollouts} rollouts" if sft.n > 1 else "1 rollout"
        for name, figures in tables.figures_of_sets(sft).items():
            for metric in ("pass@1", f"maj@{sampling.rollouts}")[: 2 if sft.n > 1 else 1]:
                result = EvalResult(
                    task_type="text-generation",
                    task_name="Text generation",
                    dataset_type=name,
                    dataset_name=name,
                    dataset_args={
                        "sha256": sft.settings.benchmarks[name],
                        "problems": figures["problems"],
                    },
                    metric_type=metric,
                    metric_name=f"{metric} ({several} per problem)",
                    metric_value=round(figures[metric] * 100, 2),
                    metric_args=conditions,
                )
                results.append(result)
    return results
