"""What a recipe will cost: evaluations counted as they will be submitted, hours as a simple sum of
decode steps gives them, money only where there is a price.
"""

from pathlib import Path

import pytest

from common.errors import UserError
from tests.trainer.planning.test_planner import planned
from trainer.doctor.forecast import look
from trainer.planning.cost import START_SECONDS, cost
from trainer.planning.memory import Setup
from trainer.planning.rl_memory import RlSetup, cache_tokens
from trainer.planning.rl_time import decode_seconds
from trainer.recipe import load as configs
from trainer.run.folder import Run
from warmstart import cli

T0 = 30 + 30 + 40


def test_evaluations_are_those_that_will_be_submitted() -> None:
    planner = planned("train.save_every=100")
    own = planner.own()
    assert own is not None and planner.total_steps == 1408
    found = cost(planner, own).evaluations
    # One of the base model, one per checkpoint: steps 100 to 1,400, and the last.
    assert (found.count, found.rollouts) == (1 + 15, 16 * T0)
    twice = cost(planned("train.save_every=100", "eval.rollouts=32"), own).evaluations
    assert twice.rollouts == 2 * found.rollouts and 1.7 < twice.hours / found.hours < 2.1
    limited = cost(planned("eval.limit=10"), own).evaluations
    assert limited.rollouts == 16 * 30


def test_the_hours_are_those_of_decode_steps_with_a_full_cache() -> None:
    planner = planned()
    own = planner.own()
    assert own is not None
    found = cost(planner, own).evaluations
    setup = RlSetup(Setup(4, 1, 20_480, "none"), 0, 1, 0.92)
    held = cache_tokens(planner.shape, setup, planner.cluster.gpu.memory)
    # On average a rollout holds its prompt and half of itself.
    flying = min(64, held / (512 + found.tokens))
    step = decode_seconds(planner.shape, setup, planner.cluster, round(flying), held * 0.6)
    seconds = found.rollouts / 4 * found.tokens / flying * step + START_SECONDS
    # The last, long rollouts end in a cache that is no longer full.
    assert 1 < found.hours / (4 * seconds / 3600) < 1.3


def test_lengths_pass_through_the_published_points() -> None:
    planner = planned("eval.max_tokens=16384")
    own = planner.own()
    assert own is not None
    capped = cost(planner, own).evaluations
    # Between the published median of a lognormal and its cap, where 37 % are.
    assert 0.37 * 16_384 + 0.5 * 5_000 < capped.tokens < 11_600
    assert cost(planned(), own).evaluations.tokens > capped.tokens


def test_the_price_is_shown_where_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "sft_4b"]) == 0
    text = capsys.readouterr().out
    assert "\ncost, GPU-hours (saves" in text and "USD" not in text
    assert cli.main(["plan", "sft_4b", "cluster.usd_per_gpu_hour=2"]) == 0
    total = next(
        x for x in capsys.readouterr().out.splitlines() if x.startswith("  total   ") and "USD" in x
    )
    hours, usd = (float(word.replace(",", "")) for word in total.split()[1:3])
    assert usd == pytest.approx(2 * hours, abs=1)


def test_doctor_and_dry_run_have_it_in_one_line(tmp_path: Path) -> None:
    config = configs.load("sft_4b", ["cluster.usd_per_gpu_hour=2"])
    found = {f.what: f.cause for f in look(config, Run(tmp_path))[1]}
    assert "GPU-hours, " in found["cost"] and " USD: training " in found["cost"]
    assert "5 evaluations of 1,600 rollouts" in found["cost"]


def test_a_set_of_unknown_size_is_named(tmp_path: Path) -> None:
    planner = planned("eval.sets=[mine]", f"eval.benchmarks={tmp_path}")
    own = planner.own()
    assert own is not None
    with pytest.raises(UserError, match=r"mine\.jsonl does not exist, so its evaluations are not"):
        cost(planner, own)
