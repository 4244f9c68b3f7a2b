"""``warmstart recipes``: every recipe, what it is, what it needs."""

import pytest

from trainer.recipe import load as configs
from trainer.recipe.catalogue import catalogue
from warmstart.cli import main


def test_every_recipe_says_what_it_is_and_needs(capsys: pytest.CaptureFixture[str]) -> None:
    found = {recipe.name: recipe for recipe in catalogue()}
    assert list(found) == configs.recipes()
    assert all(recipe.purpose and recipe.needs for recipe in found.values())
    assert found["tiny"].needs == "2 CPU cores"
    assert found["gpu_smoke"].needs == "1 GPU"
    assert found["sft_4b"].needs == (
        "4 nodes of 4 a100-40; from the hub: Qwen/Qwen3-4B-Base, open-r1/OpenR1-Math-220k"
    )
    assert "data.source" in found["gsm8k_smoke"].needs  # cannot be run as it is
    assert found["tiny"].purpose.startswith("The quickstart: ")
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(f"| {name} | " in shown for name in found)
