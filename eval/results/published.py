"""The recipe's published figures (``reference``), and the differences between an evaluation's
protocol and theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eval.evaluation_settings import EvaluationSettings
from eval.grading.metrics import TOTAL
from eval.results.evaluation import Evaluation
from trainer.recipe import protocols

Reference = Mapping[str, Any]


def figures(
    reference: Reference | None, evaluation: Evaluation, name: str, metric: str
) -> Mapping[str, float]:
    """Returns the published ``base`` and ``sft`` figures of the same problems, in percent; empty if
    there are none.
    """
    if not reference or evaluation.settings.limit is not None:
        return {}
    sets = reference.get("pass@1", {}).keys() - {TOTAL}
    if name == TOTAL and evaluation.settings.benchmarks.keys() != sets:
        return {}
    return reference.get(metric, {}).get(name, {})


def note(reference: Reference, evaluation: Evaluation) -> str:
    """Returns the source of the published figures, what else is published, and how this evaluation
    differs from theirs, as text.
    """
    parts = [f"Published figures: {reference['source']}; measured by its authors, not by this run."]
    if epochs := reference.get("epochs"):
        shown = ", ".join(f"{value} % after epoch {epoch}" for epoch, value in epochs.items())
        parts.append(f"Published pass@1 of all problems: {shown}.")
    if tokens := reference.get("tokens"):
        parts.append(
            f"Published median length: {tokens['median']:,} tokens; {tokens['hit_budget']} % of "
            "rollouts hit the budget."
        )
    if told := list(differences(reference, evaluation.settings)):
        parts.append(
            f"They were measured under another protocol (‡): {'; '.join(told)}. `warmstart eval "
            f"RUN eval.protocol={reference['protocol']}` follows it."
        )
    return " ".join(parts)


def differences(reference: Reference, settings: EvaluationSettings) -> Iterator[str]:
    """Yields each setting that the authors gave and in which this evaluation differs, as text;
    nothing if the reference names no protocol.
    """
    if reference.get("protocol") is None:
        return
    protocol = protocols.read(reference["protocol"])
    ours = _values(settings)
    for key, theirs in protocol.known.items():
        if key in ours and ours[key] != theirs:
            origin = " (from their script)" if key in protocol.script else ""
            yield f"{key} {_shown(theirs)}{origin}, ours {_shown(ours[key])}"


def _values(settings: EvaluationSettings) -> dict[str, Any]:
    """Returns the settings by their keys of ``eval``."""
    sampling, prompt = settings.sampling, settings.prompt
    return {
        "prompt": prompt.text,
        "system": prompt.system or "",
        "prefill": prompt.prefill,
        "rollouts": sampling.rollouts,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "dtype": settings.dtype,
        "extractor": settings.answer_style,
    }


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    return f"{value:,}" if isinstance(value, int) else str(value)
