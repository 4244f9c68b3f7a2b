"""Averages beside SFT and base: in report, page and compare."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import MANIFEST, write_json
from eval.report import report, tables
from eval.report.html.write import write as write_page
from eval.results import average_vs_members, base_vs_sft
from eval.results.compare import compare
from tests.eval.runs import SETS, empty_run, evaluation, first
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

AVERAGE = ModelLabel(average="7-9")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with the average of steps 7 and 9, and evaluations of these and of base."""
    monkeypatch.chdir(tmp_path)
    run = empty_run(Path("runs/mine"))
    members = [{"step": step, "weight": "1/2", "source": "export"} for step in (7, 9)]
    write_json(run.export(AVERAGE) / MANIFEST, {"average": {"members": members, "base": "0"}})
    for label, count in (("base", 0), ("step_7", 3), ("step_9", 4), (str(AVERAGE), 6)):
        evaluation(run, label, SETS, first(count))
    return run


def test_an_average_is_paired_with_each_evaluated_member(run: Run) -> None:
    (found,) = average_vs_members.of_run(run)
    assert [str(e.label) for e in found.all] == ["base", "step_7", "step_9", "avg_7_9"]
    titles, *lines = average_vs_members.headline([found])
    assert titles == ["pass@1", "base", "member", "average", "average - member"]
    assert [line[0] for line in lines[:4]] == [
        "avg_7_9, step_7, aime2025 (10 problems)",
        "avg_7_9, step_7, amc2023 (12 problems)",
        "avg_7_9, step_7, all (22 problems)",
        "avg_7_9, step_7, any@4, all",
    ]
    assert [cell.partition(" %")[0] for cell in lines[0][1:4]] == ["0.00", "30.00", "60.00"]
    assert lines[0][4].startswith("+30.00 [")
    assert lines[len(lines) // 2][0] == "avg_7_9, step_9, aime2025 (10 problems)"
    assert lines[len(lines) // 2][4].startswith("+20.00 [")


def test_other_settings_are_no_pair_and_a_deleted_export_has_no_members(run: Run) -> None:
    evaluation(run, "avg_7_9_base30", SETS, first(5), max_tokens=100)
    other = average_vs_members.of_model(run, ModelLabel(average="7-9-base30"))[0]
    assert other.base is None and other.members == {}
    _, line, *_ = average_vs_members.headline([other])
    assert line[1:3] == ["not evaluated"] * 2 and line[4] == ""


def test_the_headline_stays_with_the_newest_step_of_sft(run: Run) -> None:
    found = base_vs_sft.newest(run)
    assert [str(e.label) for e in found.all] == ["base", "step_9", "avg_7_9"]
    assert str(found.known.label) == "step_9" and found.both == found.all[:2]
    evaluation(run, "avg_7_9_base30", SETS, first(5), max_tokens=100)
    assert str(base_vs_sft.newest(run).known.label) == "step_9"


def test_report_and_page_list_it_beside_the_steps(run: Run) -> None:
    config = configs.read(run.config)
    text = report.write(run, config).read_text()
    head = text.split("\n\n")[1]
    assert "SFT (step_9)" in head and "avg_" not in head
    table = tables.pass_at_k(base_vs_sft.newest(run))
    assert "| avg_7_9, all |" in table and table in text
    section = text.split("## Averages of checkpoints")[1].split("\n## ")[0]
    assert "| avg_7_9, step_9, all (22 problems) |" in section and "Protocol: 4 rollouts" in section
    assert "avg_7_9: 48 of 88 rollouts right" in text
    page = write_page(run, config).read_text()
    assert '<span class="key average">avg_7_9</span>' in page and ".average { --ink" in page
    assert "avg_7_9, step_7, all (22 problems)" in page


def test_an_average_alone_is_shown(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "runs" / "alone")
    evaluation(run, "avg_7_9", SETS, first(5))
    assert str(base_vs_sft.newest(run).known.label) == "avg_7_9"
    text = report.write(run, configs.read(run.config)).read_text()
    assert "| avg_7_9, all | 45.45 |" in text.split("## pass@k")[1]


def test_compare_takes_it_by_its_word(run: Run) -> None:
    text = compare(["mine@avg-7-9", "mine@7", "mine"])
    assert "## A = mine@avg_7_9, B = mine@step_7" in text and "B = mine@step_9" in text
    with pytest.raises(UserError, match=r"no average avg-7 \(available: avg-7-9\)"):
        compare(["mine@avg-7", "mine"])
    with pytest.raises(UserError, match="mine@avg-NAME or mine@rl-N"):
        compare(["mine@soup", "mine"])
