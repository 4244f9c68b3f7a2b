"""The README's published figures are the recipes', and follow from counts of rollouts."""

import re

from omegaconf import OmegaConf

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROLLOUTS = {"AIME 2025": 480, "AIME 2026": 480, "AMC 2023": 640, "all 100": 1600}
KEYS = {"AIME 2025": "aime2025", "AIME 2026": "aime2026", "AMC 2023": "amc2023", "all 100": "total"}
ROWS = re.findall(r"^\| ([\w ]+) \| ([\d.]+) \| ([\d.]+) \| \+([\d.]+) \|$", README, re.MULTILINE)


def could_be(percent: float, printed: str) -> bool:
    """Returns whether a figure may have been rounded to what is printed, a tie either way."""
    digits = len(printed.partition(".")[2])
    return abs(percent - float(printed)) <= 0.5 * 10**-digits + 1e-9


def pairs(name: str, base: str, sft: str, difference: str) -> list[tuple[int, int]]:
    """Returns the counts of right rollouts, before and after, that give the printed figures."""
    n = ROLLOUTS[name]
    before = [k for k in range(n + 1) if could_be(100 * k / n, base)]
    after = [k for k in range(n + 1) if could_be(100 * k / n, sft)]
    return [(a, b) for a in before for b in after if could_be(100 * (b - a) / n, difference)]


def test_figures_are_the_recipes() -> None:
    told = OmegaConf.load(ROOT / "recipes" / "sft_4b.yaml").reference["pass@1"]
    figures = {name: rest for name, *rest in ROWS if name in KEYS}
    assert figures.keys() == KEYS.keys()
    for name, (base, sft, _) in figures.items():
        assert told[KEYS[name]] == {"base": float(base), "sft": float(sft)}
    told = OmegaConf.load(ROOT / "recipes" / "qlora_gsm8k_4b.yaml").reference["pass@1"].gsm8k_test
    assert f"| Qwen3-4B | {told.base} (985 right) | {told.sft} (1,121 right) |" in README
    assert could_be(100 * 985 / 1319, str(told.base)) and could_be(100 * 1121 / 1319, str(told.sft))


def test_each_set_has_one_pair_of_counts() -> None:
    counts = {name: pairs(name, *rest) for name, *rest in ROWS if name in KEYS}
    assert counts["AIME 2025"] == [(7, 106)]
    assert counts["AIME 2026"] == [(11, 106)]
    assert counts["AMC 2023"] == [(136, 410)]
    assert (7 + 11 + 136, 106 + 106 + 410) in counts["all 100"]
    for figure in (f"{100 * 7 / 480:.3f} %", f"{100 * 106 / 480:.3f} %", f"{100 * 99 / 480:.3f}"):
        assert figure in README
