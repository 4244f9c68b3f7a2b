"""Names in a run's folder: what they are made of, and what is read back from them."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_label_of_an_average_is_read_in_each_of_its_forms_and_sorts_before_rl() -> None:
    label = ModelLabel(average="704-1056-base30")
    assert ModelLabel.parse("avg-704-1056-base30") == label
    assert ModelLabel.parse("avg_704_1056_base30") == label
    assert (str(label), label.word) == ("avg_704_1056_base30", "avg-704-1056-base30")
    assert (label.kind, label.step) == ("average", None)
    rl = ModelLabel(rl=1, start="0123abcd")
    assert sorted([rl, label, ModelLabel(2000), BASE]) == [BASE, ModelLabel(2000), label, rl]
    for text in ("avg", "avg-", "avg-A", "avg-a--b", "avg-a-", "soup", "avg-a@b", "avg704"):
        with pytest.raises(UserError, match="names no model of a run"):
            ModelLabel.parse(text)


LABELS = st.one_of(
    st.just(BASE),
    st.integers(0, 10**7).map(ModelLabel),
    st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True).map(lambda x: ModelLabel(average=x)),
    st.builds(
        lambda step, start: ModelLabel(rl=step, start=start),
        st.integers(0, 10**5),
        st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    ),
)
SUITES = st.from_regex(r"[a-z0-9][a-z0-9_.+-]*(@[a-z0-9_-]+)?", fullmatch=True)


@given(SUITES, LABELS, st.from_regex(r"[0-9a-f]{8}", fullmatch=True))
def test_every_label_is_read_back_from_words_and_folders(
    suite: str, label: ModelLabel, config_hash: str
) -> None:
    folder = Run(Path("runs/x")).evaluation(suite, label, config_hash)
    assert parse_evaluation(folder) == (suite, label)
    assert ModelLabel.parse(label.word) == ModelLabel.parse(str(label)) == label


@given(LABELS, LABELS)
def test_two_labels_have_two_folders_and_one_order(one: ModelLabel, other: ModelLabel) -> None:
    assert (one == other) == (str(one) == str(other)) == (one.word == other.word)
    assert one == other or (one < other) != (other < one)


@pytest.mark.parametrize(
    "label",
    [BASE, ModelLabel(12), ModelLabel(rl=3, start="00ff00ff"), ModelLabel(average="3-12-base30")],
)
@pytest.mark.parametrize("suite", ["t0", "aime2025+my-set", "a@base-b"])
def test_an_evaluations_folder_tells_suite_and_model(suite: str, label: ModelLabel) -> None:
    folder = Run(Path("runs/x")).evaluation(suite, label, "0123456789abcdef")
    assert folder == Path(f"runs/x/evals/{suite}@{label}-01234567")
    assert parse_evaluation(folder) == (suite, label)


def test_only_evaluations_are_listed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    labels = (
        ModelLabel(average="3"),
        BASE,
        ModelLabel(rl=3, start="00ff00ff"),
        ModelLabel(3),
    )
    folders = [run.evaluation("t0", label, "0" * 8) for label in labels]
    others = ("notes", "old@copy-1", "t0@rl_3-00000000", "t0@avg-3-00000000", "t0@avg_3")
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
