"""Tokens and device time of the rollouts of several evaluations, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from common.text import markdown_table, percent
from eval.grading.metrics import PERCENTILES, TOTAL
from eval.results.base_vs_sft import missing
from eval.results.evaluation import Evaluation


def text(named: Mapping[str, Evaluation]) -> str:
    """Returns the table's explanation."""
    several = " (1.50 x) is a multiple of the first line's." if len(named) > 1 else ""
    return (
        "Tokens of a rollout: mean, percentiles and the longest; how many the budget ended; device "
        f"time.{several}"
    )


def table(named: Mapping[str, Evaluation]) -> str:
    """Returns a Markdown table of tokens and device time per rollout, with means also as multiples
    of the first evaluation's, and of how many rollouts the budget ended.
    """
    percents = [f"p{percent}" for percent in PERCENTILES]
    titles = ["tokens", "mean", *(f"{p[1:]} %" for p in percents), "longest", "hit the budget"]
    titles.append("device time per rollout, with start-up")
    first, *_ = named.values()
    rows = []
    for name, e in named.items():
        figures, length = e.figures[TOTAL], e.figures[TOTAL]["tokens"]
        hits = round(figures["hit_budget"] * figures["rollouts"])
        share = f"{hits:,} of {figures['rollouts']:,} ({percent(figures['hit_budget'])})"
        cut = f"{share} at {e.settings.sampling.max_tokens:,}"
        mean, *cells = (f"{round(length[key]):,}" for key in ("mean", *percents, "max"))
        mean += _times(length["mean"], first.figures[TOTAL]["tokens"]["mean"], e is first)
        rows.append([name + missing(TOTAL, e), mean, *cells, cut, _device_time(e, first)])
    return markdown_table([titles, *rows])


def _device_time(evaluation: Evaluation, first: Evaluation) -> str:
    own, reference = evaluation.device_seconds, first.device_seconds
    if own is None:
        return "unknown"
    device, seconds = own
    text = f"{seconds:.3g} s {device.upper()}"
    if reference and reference[0] == device:
        text += _times(seconds, reference[1], evaluation is first)
    return text


def _times(value: float, first: float, is_first: bool) -> str:
    return "" if is_first or not first else f" ({value / first:.2f} x)"
