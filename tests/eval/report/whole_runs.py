"""Runs with everything that a report can tell, and a bare model's, written by hand."""

from dataclasses import replace
from pathlib import Path

from common.files import MANIFEST, write_json, write_text
from common.records import Problem
from tests.eval.report.pages import step
from tests.eval.runs import SETS, Answer, empty_run, evaluation, first
from tests.trainer.run.rl_runs import begun, line
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

HASH = "0123abcd"
TIMED = {"device": "cpu", "wall_seconds": 90.0, "devices": 2, "timed_rollouts": 88}


def cut(count: int) -> Answer:
    """The answers of a model that solves the first problems of each set, and whose fourth rollout
    the budget ends.
    """
    answer = first(count)

    def say(problem: Problem, k: int) -> str | None:
        return answer(problem, k) if k < 3 else None

    return say


def trained(run: Run, held_out: dict[int, tuple[float, float]]) -> None:
    """Writes metrics of 40 steps, of which the first half is faster, with loss and entropy on the
    held-out rows after some.
    """
    attempt = run.new_attempt()
    configs.write(configs.read(run.config), attempt.config)
    write_json(attempt.provenance, {"git": "c0ffee", "versions": {}, "first_step": 0})
    lines = []
    for n in range(1, 41):
        loss, entropy = held_out.get(n, (None, None))
        made = replace(step(n), epoch=-(-n // 2), val_loss=loss, val_entropy=entropy)
        if n <= 20:
            made = replace(made, seconds=900.0, tokens_per_s=8.0, tokens_per_s_per_gpu=4.0)
        lines.append(made.json())
    write_text(attempt.metrics, "".join(lines))


def whole(folder: Path) -> Run:
    """A trained run: base and steps 10, 20 and 40 evaluated alike, an average, two models of RL,
    and step 40 on another suite too.
    """
    run = empty_run(folder)
    trained(run, {10: (0.5, 0.25), 20: (0.4, 0.2)})
    members = [{"step": step, "weight": "1/2", "source": "export"} for step in (20, 40)]
    average = ModelLabel(average="20-40")
    write_json(run.export(average) / MANIFEST, {"average": {"members": members, "base": "0"}})
    begun(run, 20, HASH, lines=[line(i, 0.4) for i in range(1, 21)])
    solved = {"base": 0, "step_10": 3, "step_20": 5, "step_40": 6}
    others = {"avg_20_40": 7, f"rl_10-{HASH}": 8, f"rl_20-{HASH}": 9}
    for label, count in {**solved, **others}.items():
        evaluation(run, label, SETS, cut(count) if label != "step_40" else first(count))
    evaluation(run, "step_40", {"gsm8k": 8}, first(3), timed=TIMED)
    (headline,) = (e for e in run.evaluations if e.name.startswith("aime2025+amc2023@step_40"))
    write_json(headline / MANIFEST, {"files": {}, **TIMED})
    return run


def bare(folder: Path, **settings: object) -> Run:
    """A run that ``warmstart eval owner/Small-Model`` makes."""
    config = configs.for_model("owner/Small-Model", [f"run.root={folder}"])
    run = Run.of(config)
    configs.write(config, run.config)
    evaluation(run, "base", SETS, cut(3), timed=TIMED, **settings)
    return run
