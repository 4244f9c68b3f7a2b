"""Names in a run's folder: what they are made of, and what is read back from them."""

import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import write_json
from trainer.run import step_metrics
from trainer.run.folder import SUBMISSIONS, Run, parse_evaluation
from trainer.run.model_label import BASE, ModelLabel


def test_a_label_is_read_in_each_of_its_forms_and_sorts_base_first() -> None:
    assert ModelLabel.parse("base") == BASE and BASE.step is None
    assert ModelLabel.parse("step_7") == ModelLabel.parse("7") == ModelLabel(7)
    labels = [ModelLabel(10), ModelLabel(9), BASE]
    assert sorted(labels) == [BASE, ModelLabel(9), ModelLabel(10)] and max(labels).step == 10
    assert [str(label) for label in labels] == ["step_10", "step_9", "base"]
    assert [label.word for label in labels] == ["10", "9", "base"]
    for text in ("", "last", "step_", "-1", "step_7.damaged"):
        with pytest.raises(UserError, match="names no model of a run"):
            ModelLabel.parse(text)


def test_a_label_of_rl_is_read_in_each_of_its_forms_and_sorts_last() -> None:
    full = ModelLabel(rl=20, start="0123abcd")
    assert ModelLabel.parse("rl-20-0123abcd") == ModelLabel.parse("rl_20-0123abcd") == full
    assert ModelLabel.parse("rl-20") == ModelLabel(rl=20) != full
    assert (str(full), full.word) == ("rl_20-0123abcd", "rl-20-0123abcd")
    assert ModelLabel(rl=20).word == "rl-20" and full.step is None
    assert [x.kind for x in (BASE, ModelLabel(20), full)] == ["base", "sft", "rl"]
    later = ModelLabel(rl=100, start="0123abcd")
    assert sorted([later, full, ModelLabel(480), BASE]) == [BASE, ModelLabel(480), full, later]
    for text in ("rl", "rl-", "rl-x", "rl-20-", "rl-20-0123", "rl-20-0123ABCD", "rl_20-0123abcd-1"):
        with pytest.raises(UserError, match="names no model of a run"):
            ModelLabel.parse(text)


@pytest.mark.parametrize("label", [BASE, ModelLabel(12), ModelLabel(rl=3, start="00ff00ff")])
@pytest.mark.parametrize("suite", ["t0", "aime2025+my-set", "a@base-b"])
def test_an_evaluations_folder_tells_suite_and_model(suite: str, label: ModelLabel) -> None:
    folder = Run(Path("runs/x")).evaluation(suite, label, "0123456789abcdef")
    assert folder == Path(f"runs/x/evals/{suite}@{label}-01234567")
    assert parse_evaluation(folder) == (suite, label)


def test_only_evaluations_are_listed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    labels = (BASE, ModelLabel(rl=3, start="00ff00ff"), ModelLabel(3))
    folders = [run.evaluation("t0", label, "0" * 8) for label in labels]
    others = ("notes", "old@copy-1", "t0@rl_3-00000000")
    for folder in (*folders, *(tmp_path / "evals" / name for name in others)):
        folder.mkdir(parents=True)
    (tmp_path / "evals" / "t0@base-00000000.txt").touch()
    assert run.evaluations == folders


def test_attempts_are_numbered_and_sorted_as_numbers(tmp_path: Path) -> None:
    run = Run(tmp_path)
    made = [run.new_attempt() for _ in range(11)]
    assert run.attempts == made and [attempt.number for attempt in made] == list(range(1, 12))
    shutil.rmtree(made[0].root)
    shutil.rmtree(made[4].root)
    for name in ("notes", ".nfs12", "²", "3.tar.gz", "0", "007", "-1"):
        (tmp_path / "attempts" / name).mkdir()
    assert run.last_attempt == 11 and run.attempts == [*made[1:4], *made[5:]]
    assert run.new_attempt().number == 12
    (tmp_path / "attempts" / "13").touch()
    assert run.new_attempt().number == 14


def test_two_processes_that_begin_an_attempt_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Run(tmp_path), Run(tmp_path)
    first.new_attempt()
    monkeypatch.setattr(Run, "last_attempt", 0)
    with pytest.raises(UserError, match=r"attempts/1 was created by another process at the same"):
        second.new_attempt()


def test_a_broken_line_of_metrics_is_named_and_a_torn_last_one_is_no_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt = run.new_attempt()
    write_json(attempt.provenance, {"first_step": 0})
    attempt.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert step_metrics.read(run) == [{"step": 1}, {"step": 2}]
    attempt.metrics.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"attempts/1/metrics\.jsonl, line 2: not valid JSON"):
        step_metrics.read(run)


def test_submitted_steps_without_an_export_are_awaited(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for label in ("base", "2", "4"):
        run.note(SUBMISSIONS, {"label": label, "settings": "0", "job": "7"})
    run.export(2).mkdir(parents=True)
    (run.export(2) / "manifest.json").write_text("{}")
    assert run.awaited == {4}
