"""Steps of RL, read from verl's lines."""

from pathlib import Path

from tests.trainer.run.rl_runs import begun, line
from trainer.run import rl_metrics, rl_models
from trainer.run.folder import Run


def test_figures_are_read_by_verls_names(tmp_path: Path) -> None:
    first = {"step": 0, "data": {"val-core/heldout/acc/mean@1": 0.125}}
    lines = [first, line(1, 0.5, held_out=0.25, truncated=0.75), line(2, 0.625)]
    lines[2]["data"]["actor/entropy"] = None
    start = begun(Run(tmp_path), 7, "0a0a0a0a", lines=lines)
    before, one, two = rl_metrics.read(start)
    assert before.held_out == 0.125 and before.reward is before.tokens is None
    assert (one.reward, one.held_out, one.truncated) == (0.5, 0.25, 0.75)
    assert (one.tokens, one.longest, one.seconds) == (101.0, 400.0, 36.0)
    assert two.entropy is two.held_out is None and two.reward == 0.625
    assert rl_metrics.read(start, until=1) == [before, one]


def test_a_start_that_has_not_begun_has_no_steps(tmp_path: Path) -> None:
    assert rl_metrics.read(begun(Run(tmp_path), 7, "0a0a0a0a")) == []


def test_facts_are_those_of_the_attempt(tmp_path: Path) -> None:
    """verl's file has values that stand for others."""
    start = begun(Run(tmp_path), 7, "0a0a0a0a")
    assert rl_models.facts(start)["lr"] == 1e-6 and rl_models.facts(start)["gpus"] == 2
    attempt = start.new_attempt()
    attempt.values.parent.mkdir()
    text = start.config.read_text().replace("1.0e-06", "3.0e-06").replace("'n': 8", "'n': 4")
    text = text.replace("temperature: 1.0", "temperature: ${data.max_response_length}")
    attempt.values.write_text(text + "other: ${nowhere}\n")
    facts = rl_models.facts(start)
    assert (facts["lr"], facts["rollouts"], facts["temperature"]) == (3e-6, 4, 512)
    assert (facts["problems"], facts["in_sft"], facts["never"], facts["always"]) == (120, 7, 60, 20)
