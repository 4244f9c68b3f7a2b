"""Which steps raise an alarm, and which do not."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.trainer.alarms.simulate import STEP, clean, raised, spiked
from trainer.alarms.alarms import KINDS, WINDOW, Alarms
from trainer.alarms.detectors import Episode, line, spread


def steps(count: int, **series: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Steps 1 to ``count``, whose metrics are constant but for these."""
    return [
        STEP | {"step": n} | {key: values(n) for key, values in series.items()}
        for n in range(1, count + 1)
    ]


def kinds(made: list[dict[str, Any]], **alarms: Any) -> list[tuple[str, int]]:
    detector = Alarms(**({"clip_grad": 1.0, "early": 0} | alarms))
    return [(a.kind, a.step) for step in made for a in detector.feed(step)]


def noise(seed: int, size: float) -> Callable[[int], float]:
    values = np.random.default_rng(seed).standard_normal(2000) * size
    return lambda n: float(values[n])


def test_simulated_clean_runs_raise_next_to_nothing() -> None:
    """Noise with the tails of Student's t with 4 degrees of freedom: 1 alarm in 10,000 steps of
    each of two series, so 1.4 in 7,040 steps; 6 or more have a chance of 0.3 %.
    """
    found = [alarm for seed in range(5) for alarm in raised(clean(seed))]
    assert {alarm.kind for alarm in found} <= {"loss", "grad_norm"} and len(found) < 6
    assert raised(clean(5, tails=1e6)) == []


@pytest.mark.parametrize(
    ("key", "factor", "places"),
    [("loss", 3.0, (60, 90, 150, 700, 1200)), ("grad_norm", 20.0, (150, 700, 1200))],
)
def test_a_spike_is_found_at_its_step_also_while_the_loss_falls(
    key: str, factor: float, places: tuple[int, ...]
) -> None:
    for seed, at in enumerate(places):
        found = raised(spiked(seed, at, key, factor))
        assert [(a.kind, a.step) for a in found if a.step == at] == [(key, at)]


def test_a_step_of_few_rows_may_be_noisier() -> None:
    wide = noise(1, 0.02)
    made = steps(100, loss=lambda n: math.exp(wide(n)))
    made[-1] |= {"loss": 1.6, "grad_norm": 1.3}
    assert kinds(made) == [("loss", 100), ("grad_norm", 100)]
    made[-1] |= {"rows": 4}
    assert kinds(made) == []


def test_one_alarm_an_episode_and_another_after_a_calm() -> None:
    high = {60, 61, 63, 70, 90}
    made = steps(120, loss=lambda n: 9.0 if n in high else 1 + 0.001 * (n % 7))
    assert kinds(made) == [("loss", 60), ("loss", 90)]


def test_the_first_steps_have_too_little_history_to_be_judged() -> None:
    for at, found in ((19, []), (30, [("loss", 30)])):
        assert kinds(steps(40, loss=lambda n, at=at: 9.0 if n == at else 1 + 0.001 * n)) == found


def test_what_is_not_finite_is_raised_once_and_does_not_enter_the_bands() -> None:
    made = steps(80, loss=lambda n: 1 + 0.001 * (n % 7))
    for n in (30, 31, 60):
        made[n - 1] |= {"loss": None, "grad_norm": None, "entropy": None, "token_accuracy": None}
    assert kinds(made) == [("not_finite", 30), ("not_finite", 60)]


def test_a_step_of_few_rows_has_a_band_wider_by_the_root_of_what_it_lacks() -> None:
    made = steps(100, grad_norm=lambda n: 1 + 0.001 * (n % 7))
    for norm, found in ((8.0, []), (12.0, [("grad_norm", 100)])):
        made[-1] |= {"grad_norm": norm, "rows": 4}
        assert kinds(made) == found


def test_clipping_that_sets_in_is_raised_but_neither_early_nor_constant_nor_slight() -> None:
    weak, strong = noise(2, 0.05), noise(3, 0.1)
    rising = steps(400, grad_norm=lambda n: (0.5 if n < 300 else 2.5) * math.exp(weak(n)))
    (clipping,) = [step for kind, step in kinds(rising) if kind == "clipping"]
    # Half of the last 50 steps must be clipped, and their median with them.
    assert 300 + WINDOW // 2 - 1 <= clipping <= 300 + WINDOW // 2 + 1
    early = steps(400, grad_norm=lambda n: (2.5 if n < 100 else 0.5) * math.exp(weak(n)))
    always = steps(400, grad_norm=lambda n: 2.5 * math.exp(strong(n)))
    drifting = steps(1000, grad_norm=lambda n: (0.8 + 0.4 * n / 1000) * math.exp(weak(n)))
    assert [kinds(made) for made in (early, always, drifting)] == [[], [], []]
    sometimes = steps(400, grad_norm=lambda n: 0.5 if n < 300 else 2.5 if n % 5 < 2 else 0.9)
    weaker = steps(400, grad_norm=lambda n: 0.95 if n < 300 else 1.1)
    assert ("clipping", 0) not in [(kind, 0) for kind, _ in kinds(sometimes) + kinds(weaker)]
    assert kinds(rising, early=280) == [a for a in kinds(rising) if a[0] != "clipping"]


@pytest.mark.parametrize(
    ("key", "after", "raises"),
    [
        ("entropy", lambda n: 0.5 * 0.9 ** (n - 200), True),
        ("entropy", lambda n: 0.5 * 1.1 ** (n - 200), False),  # the loss tells that
        ("token_accuracy", lambda n: 0.8 - 0.02 * (n - 200), True),
        ("token_accuracy", lambda n: min(0.8 + 0.01 * (n - 200), 1.0), True),
        ("token_accuracy", lambda n: 0.8 if n != 205 else 0.1, False),  # one step is no trend
    ],
)
def test_what_leaves_its_trend_fast_is_raised(
    key: str, after: Callable[[int], float], raises: bool
) -> None:
    jitter = noise(4, 0.01)
    before = STEP[key]
    made = steps(225, **{key: lambda n: before + jitter(n) if n <= 200 else after(n)})
    found = [step for kind, step in kinds(made) if kind == key]
    assert found == [] if not raises else len(found) == 1 and 203 <= found[0] <= 212


def test_what_changes_fast_is_told_with_its_direction_and_not_during_warmup() -> None:
    jitter = noise(4, 0.01)
    for change, told in ((0.01, "rises"), (-0.02, "falls")):

        def accuracy(n: int, change: float = change) -> float:
            return 0.8 + jitter(n) if n <= 200 else min(0.8 + change * (n - 200), 1.0)

        made = steps(225, token_accuracy=accuracy)
        detector = Alarms(1.0, 0)
        (alarm,) = [a for step in made for a in detector.feed(step)]
        assert told in alarm.text and kinds(made, early=180) == []


def test_a_steady_change_or_an_epochs_first_step_is_no_fast_change() -> None:
    jitter = noise(5, 0.01)
    steady = steps(500, entropy=lambda n: 2 * math.exp(-n / 100 + jitter(n)))
    jumping = steps(
        499,
        epoch=lambda n: 1 + n // 250,
        token_accuracy=lambda n: 0.7 + 0.2 * (n // 250) + jitter(n),
    )
    assert (kinds(steady), kinds(jumping)) == ([], [])
    assert {kind for kind, _ in kinds([s | {"epoch": 1} for s in jumping])} == {"token_accuracy"}


def validated(*losses: float) -> list[dict[str, Any]]:
    made = steps(10 * len(losses))
    for i, loss in enumerate(losses):
        made[10 * i + 9] = made[10 * i + 9] | {"val_loss": loss}
    return made


def test_a_validation_loss_that_rises_is_raised_after_three_in_a_row() -> None:
    falling = (2.0, 1.5, 1.2, 1.1, 1.0, 0.99, 0.98, 0.985, 0.975, 0.98, 0.97, 0.975, 0.98)
    assert kinds(validated(*falling, 1.2, 1.3, 0.98, 1.2, 1.3)) == []
    assert kinds(validated(*falling, 1.3, 1.4, 1.5, 1.6)) == [("val_loss", 160)]
    assert kinds(validated(*falling, *[0.979] * 5)) == []
    assert kinds(validated(*[1.0] * 12, *[1.002] * 4)) == [], "too little"


def test_noise_of_the_validation_is_no_rise() -> None:
    """The lowest of many noisy losses is low by luck: most later ones are above it."""
    draw = np.random.default_rng(6)
    for _ in range(50):
        assert kinds(validated(*np.exp(0.02 * draw.standard_normal(60)))) == []


def slow(count: int, which: Callable[[int], list[tuple[int, float]]]) -> list[dict[str, Any]]:
    return steps(count, slow=which)


def test_a_rank_that_is_slow_for_long_is_named_once() -> None:
    detector = Alarms(1.0, 0)
    made = slow(200, lambda n: [(3, 1.4)] if n > 20 and n % 20 else [])
    (alarm,) = [a for step in made for a in detector.feed(step)]
    assert (alarm.kind, alarm.rank) == ("slow_rank", 3)
    assert 20 + 45 <= alarm.step <= 20 + 50 and "1.40 times" in alarm.text
    assert kinds(slow(200, lambda n: [(3, 1.4)] if n % 4 else [])) == [], "not for long"
    # After a restart on other ranks, rank 3 is another one.
    moved = made[:60] + [
        s | {"tokens_per_s_per_gpu": 0.5, "slow": [(3, 1.4)]} for s in made[60:100]
    ]
    assert kinds(moved) == []
    # And is named again, when it is slow for long there.
    always = slow(200, lambda n: [(3, 1.4)])
    restarted = always[:60] + [s | {"tokens_per_s_per_gpu": 0.5} for s in always[60:]]
    assert [kind for kind, _ in kinds(restarted)] == ["slow_rank", "slow_rank"]


def eventful() -> list[dict[str, Any]]:
    """A run with every kind of alarm."""
    made = clean(7)[:700]
    for step in made[199:]:
        step["slow"] = [(5, 1.3)]
    made[299]["loss"] *= 8
    made[319]["grad_norm"] = made[319]["loss"] = None
    for step in made[399:]:
        step["entropy"] *= 0.9 ** (step["step"] - 399)
        step["token_accuracy"] = 0.02
        if step["grad_norm"] is not None:
            step["grad_norm"] *= 60
        if step["val_loss"] is not None:
            step["val_loss"] *= 1 + (step["step"] - 399) / 100
    return made


def test_a_run_resumed_anywhere_raises_what_an_uninterrupted_one_does() -> None:
    """The state comes from the lines of metrics.jsonl alone; every place to cut is tried."""
    made = eventful()
    detector = Alarms(1.0, 42)
    whole = [detector.feed(step) for step in made]
    assert {alarm.kind for found in whole for alarm in found} == set(KINDS)
    before = Alarms(1.0, 42)
    for cut, step in enumerate(made):
        # Rank 0 has read the lines before the cut; the others get its state.
        resumed = copy.deepcopy(before)
        until = len(made) if cut % 140 == 0 else cut + 2
        assert [resumed.feed(step) for step in made[cut:until]] == whole[cut:until], cut
        before.feed(json.loads(json.dumps(step)))


def test_steps_of_older_code_raise_only_what_they_recorded() -> None:
    known = {"step", "epoch", "loss", "grad_norm", "tokens", "val_loss"}
    known |= {"tokens_per_s", "tokens_per_s_per_gpu"}
    made = steps(80, loss=lambda n: 9.0 if n == 70 else 1 + 0.001 * (n % 7))
    old = [{key: value for key, value in step.items() if key in known} for step in made]
    assert kinds(old) == [("loss", 70)]


def test_the_line_is_the_median_slope_whatever_a_quarter_of_the_points_does() -> None:
    values = [3.0 + 0.5 * x for x in range(40)]
    assert line(values) == pytest.approx((0.5, 3.0))
    for x in range(0, 40, 4):
        values[x] += 100.0
    slope, level = line(values)
    assert slope == pytest.approx(0.5, abs=0.05) and abs(level - 3) < 1.5


def test_the_spread_of_normal_noise_is_its_standard_deviation() -> None:
    draw = np.random.default_rng(8).standard_normal(20_001)
    assert spread((3 * draw).tolist()) == pytest.approx(3, rel=0.03)


def test_an_episode_ends_after_its_pause() -> None:
    episode = Episode(quiet=2)
    on = [True, False, False, True, False, False, False, True]
    assert [episode.begins(x) for x in on] == [True, *[False] * 6, True]
