"""docs/evidence.md: its settings are the recipe's, its links exist, and its figures follow from the
published ones.
"""

import re
from functools import cache
from math import exp, pi, sqrt
from statistics import stdev

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from scipy.optimize import brentq
from scipy.special import betaln
from scipy.stats import chi2, norm, t

from data_prep.benchmarks.sets import protocol
from data_prep.duplicates import benchmark_index, minhash
from data_prep.rows import filters
from eval.grading.intervals import LEVEL
from tests.conftest import ROOT
from trainer.recipe import load as configs

PAGE = (ROOT / "docs" / "evidence.md").read_text()
CONSTANTS = {"benchmark_index": benchmark_index, "filters": filters, "minhash": minhash}

SIZES = {"aime2025": 30, "aime2026": 30, "amc2023": 40}
EPOCHS = (37.0, 38.9, 37.3)
"""The published T0 pass@1 after epochs 1, 2 and 3."""
BETWEEN_RUNS = 1.0
"""The page's assumption: standard deviation between training runs, in points."""
SEEDS = 3


@cache
def recipe(name: str = "sft_4b") -> DictConfig:
    return configs.load(name)


def settings() -> dict[str, str]:
    """Key -> value, as the page's table of settings has them."""
    section = PAGE.split("\n## Settings\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", section, re.MULTILINE))


def test_every_setting_of_the_recipes_data_and_training_has_a_line() -> None:
    file = OmegaConf.load(configs.RECIPES / "sft_4b.yaml")
    own = {f"{section}.{key}" for section in ("data", "train") for key in file[section]}
    assert own - settings().keys() == set()


@pytest.mark.parametrize("key", settings())
def test_the_page_has_the_recipes_value(key: str) -> None:
    module, _, name = key.rpartition(".")
    if module in CONSTANTS:
        here = getattr(CONSTANTS[module], name)
    else:
        here = OmegaConf.select(recipe(), key)
    assert yaml.safe_load(settings()[key]) == here


def test_every_link_has_an_address_and_every_repository_a_commit() -> None:
    addresses = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", PAGE, re.MULTILINE))
    assert set(re.findall(r"\]\[([\w-]+)\]", PAGE)) == addresses.keys()
    files = [a for a in addresses.values() if re.search(r"github.com/[^/]+/[^/]+/(blob|tree)/", a)]
    assert files
    assert all(re.search(r"/(blob|tree)/[0-9a-f]{40}/", address) for address in files)


@cache
def published() -> "Published":
    return Published()


class Published:
    """What follows from the published figures, in shares of 1 unless named points."""

    def __init__(self) -> None:
        config = recipe()
        figures = config.reference
        rollouts, _ = protocol(config.eval.sets, config.eval.rollouts, config.eval.temperature)
        assert figures.rollouts == rollouts
        self.mean = figures["pass@1"].total.sft / 100
        self.any = figures["any@16"].total.sft / 100
        self.problems = sum(SIZES.values())
        self.rollouts = self.problems * rollouts
        self.per_set = {name: figures["pass@1"][name].sft / 100 for name in SIZES}

        def never(precision: float) -> float:
            """Share of problems without a right rollout, of a beta distribution."""
            right, wrong = self.mean * precision, (1 - self.mean) * precision
            return exp(betaln(right, wrong + rollouts) - betaln(right, wrong))

        self.precision = brentq(lambda v: never(v) - (1 - self.any), 0.01, 100)
        right, wrong = self.mean * self.precision, (1 - self.mean) * self.precision
        self.perfect = exp(betaln(right + rollouts, wrong) - betaln(right, wrong))
        alike = self.mean * (1 - self.mean)
        self.within = alike * self.precision / (self.precision + 1)
        self.rollout_error = 100 * sqrt(self.within / self.rollouts)
        self.rollout_error_alike = 100 * sqrt(alike / self.rollouts)
        between_sets = sum(
            SIZES[name] / self.problems * (share - self.mean) ** 2
            for name, share in self.per_set.items()
        )
        spread = alike / (self.precision + 1) - between_sets + self.within / rollouts
        self.problem_error = 100 * sqrt(spread / self.problems)


Z = norm.ppf((1 + LEVEL) / 2)


def run_deviation(between_runs: float) -> float:
    """Standard deviation of one training run's figure, in points."""
    return sqrt(between_runs**2 + published().rollout_error ** 2)


def error(seeds: float, between_runs: float = BETWEEN_RUNS) -> float:
    """Standard error of (mean of ``seeds`` runs - the published run), in points."""
    return run_deviation(between_runs) * sqrt(1 + 1 / seeds)


def interval(standard_error: float) -> str:
    figure = 100 * published().mean
    return f"{figure - Z * standard_error:.1f} to {figure + Z * standard_error:.1f}"


def power(shortfall: float, standard_error: float) -> str:
    told = norm.cdf(shortfall / standard_error - Z) + norm.cdf(-shortfall / standard_error - Z)
    return f"{100 * told:.0f} %"


def found(standard_error: float) -> str:
    return f"{(Z + norm.ppf(0.8)) * standard_error:.1f}"


@pytest.mark.parametrize("seeds", [1, 3, 5, 1e9])
def test_the_table_of_seeds_follows_from_the_published_figures(seeds: float) -> None:
    e = error(seeds)
    label = "many" if seeds > 100 else f"{seeds:.0f}"
    powers = " | ".join(power(shortfall, e) for shortfall in (3, 4, 5))
    assert f"\n| {label} | {e:.2f} | {interval(e)} | {powers} | {found(e)} |\n" in PAGE


@pytest.mark.parametrize("between_runs", [0.5, 1.0, 2.0])
def test_the_table_of_assumptions_follows_from_the_published_figures(between_runs: float) -> None:
    e = error(SEEDS, between_runs)
    row = f"| {between_runs} | {e:.2f} | {interval(e)} | {power(3, e)} | {found(e)} |"
    assert f"\n{row}\n" in PAGE


def test_the_figures_in_the_text_follow_from_the_published_ones() -> None:
    p = published()
    spread = stdev(EPOCHS)
    # Satterthwaite's degrees of freedom are within 1 of these; t changes in the third digit.
    half = t.ppf((1 + LEVEL) / 2, p.problems - len(SIZES)) * p.problem_error
    best_of_three = 3 / (2 * sqrt(pi))
    alone = 100 * sqrt(p.per_set["aime2025"] * (1 - p.per_set["aime2025"]) / (30 * 16))
    text = " ".join(PAGE.split())
    for words in (
        f"T0 pass@1 = {100 * p.mean:.1f} %",
        f"mean {p.mean:.3f} and the published any@16 of {100 * p.any:.0f} %",
        f"precision is ν = {p.precision:.3f}",
        f"perfect@16 = {100 * p.perfect:.1f} %",
        f"p(1 - p) is then {p.within:.4f}",
        f"√({p.within:.4f} / {p.rollouts}) = {p.rollout_error:.2f} points",
        f"({p.rollout_error_alike:.2f} if all problems were alike)",
        f"a standard deviation of {spread:.2f} points",
        f"{sqrt(spread**2 - p.rollout_error**2):.2f} is left",
        f"95 % upper limit {spread * sqrt(2 / chi2.ppf((1 - LEVEL) / 2, 2)):.1f} points",
        f"√({BETWEEN_RUNS}² + {p.rollout_error:.2f}²) = {run_deviation(BETWEEN_RUNS):.2f} points",
        f"standard error {run_deviation(BETWEEN_RUNS):.2f} · √(1 + 1/n)",
        f"standard deviation is above {run_deviation(BETWEEN_RUNS):.2f}, it replaces",
        f"±{half:.1f} points",
        f"exceed their mean by {best_of_three * spread:.2f} points",
        f"5 points is excluded with {power(5, error(SEEDS))}",
        f"3 points only with {power(3, error(SEEDS))}",
        f"rollout error of up to {alone:.1f} points",
        f"{100 * p.mean:.1f} ± {Z * sqrt(2) * p.rollout_error:.1f}",
    ):
        assert words in text, words
