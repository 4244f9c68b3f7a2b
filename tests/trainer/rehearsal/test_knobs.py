"""Which runs rehearse, and which knobs are left out in which order."""

from pathlib import Path

from trainer.recipe import load as configs
from trainer.rehearsal.knobs import KNOBS, is_due, off, switched_on, tries
from trainer.run.folder import Run


def test_knobs_are_tried_alone_and_then_together() -> None:
    assert tries(KNOBS[:1]) == [KNOBS[:1]]
    assert tries(KNOBS[:2]) == [KNOBS[:1], KNOBS[1:2], KNOBS[:2]]
    assert off(KNOBS[:2]) == ["train.compile=false", "train.liger=false"]


def test_a_run_with_a_knob_on_rehearses_until_it_has_a_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    on = ["train.prefetch=true", "train.compile=true"]
    config = configs.load("tiny", on)
    assert switched_on(config) == ["train.compile", "train.prefetch"]
    assert is_due(run, config)
    assert not is_due(run, configs.load("tiny"))
    assert not is_due(run, configs.load("tiny", [*on, "verl.engine.offload_policy=true"]))
    run.checkpoint(4).mkdir(parents=True)
    assert is_due(run, config), "an unfinished checkpoint"
    (run.checkpoint(4) / "manifest.json").write_text("{}")
    assert not is_due(run, config)


def test_each_knob_is_a_switch_of_the_recipes() -> None:
    assert switched_on(configs.load("sft_4b", [f"{knob}=true" for knob in KNOBS])) == [*KNOBS]
    assert switched_on(configs.load("sft_4b", off(KNOBS))) == []
