"""What a card and a report say of other seeds, and that no folder beside a run can break them."""

import shutil
from pathlib import Path

import pytest

from common.files import MANIFEST
from eval.card import card
from eval.grading import replicates
from eval.report import report
from eval.report.html.write import write as write_page
from eval.results import evaluation, siblings
from eval.results.evaluation import Evaluation
from tests.eval.card.card_runs import SETS, STEP, evaluated, made
from tests.eval.replicate_runs import changed
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

LABEL = ModelLabel(STEP)
ONE = "This is one training run with one seed. Another seed would give other figures."


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made(tmp_path)


def sibling(run: Run, name: str, seed: int, right: int | None, **values: object) -> Run:
    """A copy of the run with another seed, of whose four rollouts ``right`` are right."""
    other = Run(run.root.with_name(name))
    shutil.copytree(run.root, other.root, ignore=shutil.ignore_patterns("evals"))
    changed(other, train__seed=seed, verl__engine__seed=seed, **values)
    if right is not None:
        evaluated(other, LABEL, right)
    return other


def own(run: Run) -> Evaluation:
    return next(evaluation.read(f) for f in run.evaluations if str(LABEL) in f.name)


def reported(run: Run) -> list[str]:
    """The report and the page, which need no dataset; this one has no tokens."""
    config = configs.read(run.config)
    shutil.rmtree(config.data.dir)
    return [report.write(run, config).read_text(), write_page(run, config).read_text()]


def text(run: Run) -> str:
    return card.refresh(run)[0].read_text()


def test_a_run_alone_says_that_it_is_one_seed(run: Run) -> None:
    evaluated(run, LABEL, 2)
    assert f"- {ONE}" in text(run)
    assert not any("training seeds" in where for where in reported(run))


def test_with_replicates_card_report_and_page_have_the_groups_figure(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, LABEL, 2)
    sibling(run, "another", 7, 3)
    sibling(run, "third", 8, 2)
    values = [[[share] * n for n in SETS.values()] for share in (0.5, 0.75, 0.5)]
    found, spread = replicates.mean(values), replicates.spread(values)
    said = text(run)
    assert ONE not in said
    sentence = (
        f"Over 3 training seeds, pass@1 of step_2 on all 70 problems is 58.33 % "
        f"[{found.lower * 100:.1f}, {found.upper * 100:.1f}], a 95 % interval over seeds and "
        f"problems. Spread between runs (standard deviation, in points): "
        f"{spread.deviation * 100:.2f} ["
    )
    each = "The runs: sft_4b (seed 42) 50.00 %, another (seed 7) 75.00 %, third (seed 8) 50.00 %."
    for where in (said, *reported(run)):
        assert sentence in where and each in where
    assert str(run.root.parent) not in said


def test_runs_that_are_no_replicates_or_are_evaluated_otherwise_do_not_count(run: Run) -> None:
    evaluated(run, LABEL, 2)
    sibling(run, "same_seed", 42, 3)
    sibling(run, "other_lr", 7, 3, train__lr=0.5, verl__optim__lr=0.5)
    sibling(run, "not_evaluated", 8, None)
    sibling(run, "other_rollouts", 9, None)
    evaluated(changed(Run(run.root.with_name("other_rollouts")), eval__temperature=1.0), LABEL, 3)
    unfinished = sibling(run, "unfinished", 10, 3)
    (unfinished.evaluations[0] / MANIFEST).unlink()
    only_base = sibling(run, "only_base", 11, None)
    evaluated(only_base, BASE, 1)
    (run.root.parent / "no_run").mkdir()
    (run.root.parent / "a_file").write_text("x")
    (run.root.parent / "dangling").symlink_to(run.root.parent / "gone")
    (run.root.parent / "link_to_it").symlink_to(run.root)
    assert ONE in text(run) and siblings.find(run, own(run)) is None
    # Two runs of one seed, of which a copy is one, count once.
    sibling(run, "real", 12, 3)
    sibling(run, "real_copy", 12, 3)
    assert "Over 2 training seeds" in text(run) and "real (seed 12) 75.00 %." in text(run)


def test_broken_siblings_break_nothing_and_are_named(run: Run) -> None:
    evaluated(run, LABEL, 2)
    breaks = {
        "yaml": lambda r: r.config.write_text("a: [\n- b: {"),
        "list": lambda r: r.config.write_text("[1, 2]"),
        "bytes": lambda r: r.config.write_bytes(b"\xff\xfe\x00"),
        "empty": lambda r: r.config.write_text(""),
        "seed": lambda r: r.config.write_text(r.config.read_text().replace("seed: 99", "seed: x")),
        "reference": lambda r: r.config.write_text("run: ${nothing.here}\n"),
        "settings": lambda r: (r.evaluations[0] / "settings.json").write_text("{"),
        "settings_list": lambda r: (r.evaluations[0] / "settings.json").write_text("[]"),
        "grades": lambda r: (r.evaluations[0] / "grades.jsonl").write_text("no json\n"),
        "no_grades": lambda r: (r.evaluations[0] / "grades.jsonl").unlink(),
        "metrics": lambda r: (r.evaluations[0] / "metrics.json").write_text("[]"),
        "no_metrics": lambda r: (r.evaluations[0] / "metrics.json").unlink(),
        "problems": lambda r: (r.evaluations[0] / "problems.jsonl").write_text("{}\n"),
        "provenance": lambda r: r.attempts[-1].provenance.write_text("7"),
    }
    for name, spoil in breaks.items():
        spoil(sibling(run, f"broken_{name}", 99, 3))
    said = text(run)
    assert ONE in said and "training seeds" not in said
    sibling(run, "whole", 7, 3)
    said = text(run)
    assert ONE not in said and "Over 2 training seeds" in said
    named = said.split("Not counted, as they could not be read: ")[1].split(".**")[0].split(", ")
    # A configuration without anything is another recipe, not a broken one.
    assert set(named) | {"broken_empty"} == {f"broken_{name}" for name in breaks}


def test_reading_a_sibling_leaves_it_as_it_is(run: Run) -> None:
    evaluated(run, LABEL, 2)
    other = sibling(run, "other", 7, 3)
    path = other.evaluations[0] / "rollouts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"key": ["torn')
    before = {p: p.stat().st_mtime_ns for p in other.root.rglob("*")}
    assert "Over 2 training seeds" in text(run)
    assert {p: p.stat().st_mtime_ns for p in other.root.rglob("*")} == before


def test_a_model_of_rl_has_no_group(run: Run) -> None:
    evaluated(run, LABEL, 2)
    sibling(run, "other", 7, 3)
    one = own(run)
    assert siblings.find(run, one) is not None
    assert siblings.find(run, None) is None
    rl = type(one)(one.folder, ModelLabel(rl=5, start="0123abcd"), one.settings)
    assert siblings.find(run, rl) is None
