"""``warmstart runs``: all runs of some folders, as a table and as a page."""

import getpass
import json
import os
from pathlib import Path

import pytest

from common.files import write_json, write_lock
from eval.overview.overview import find
from tests.browser import Browser, opened
from tests.browser import browser as browser
from tests.eval.runs import SETS, empty_run, evaluation, first
from trainer.run.folder import Run
from warmstart.cli import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good, a hostile and a damaged run, and what is no run."""
    monkeypatch.chdir(tmp_path)
    root = Path("runs")
    good = empty_run(root / "good")
    evaluation(
        good,
        "step_7",
        SETS,
        first(4),
        timed={"wall_seconds": 7200.0, "devices": 4, "device": "cuda"},
    )
    empty_run(root / "<b>new")
    broken = empty_run(root / "broken")
    broken.config.write_text("a: [")
    for age, name in enumerate(("broken", "<b>new")):
        os.utime(root / name / "config.yaml", (age, age))
    (root / "notes").mkdir()
    return root


def test_each_run_has_owner_state_accuracy_and_cost(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, new, broken = find([runs])
    assert [known.run.name for known in (good, new, broken)] == ["good", "<b>new", "broken"]
    assert good.owner == getpass.getuser() and good.state == "evaluated"
    assert good.accuracy.startswith("aime2025+amc2023, step_7: pass@1 36.36 % [")
    assert good.hours == "8 GPU-hours" and good.recipe == "tiny"
    assert (new.state, new.accuracy, new.hours) == ("not trained", "", "")
    assert broken.state.startswith("damaged: ") and "config.yaml" in broken.state
    assert main(["runs"]) == 0
    text = capsys.readouterr().out
    assert "| good | " in text and "notes" not in text and "brackets: 95 % intervals" in text
    assert main(["runs", "--json", "runs/good"]) == 0
    assert [known["state"] for known in json.loads(capsys.readouterr().out)] == ["evaluated"]


def test_what_goes_on_is_the_state(runs: Path) -> None:
    run = Run(runs / "good")
    with write_lock(run.lock):
        assert find([run.root])[0].state == "training"
    with write_lock(run.evaluations[0] / "lock"):
        assert find([run.root])[0].state == "evaluating"
    (run.root / "attempts" / "1").mkdir(parents=True)
    assert find([run.root])[0].state == "cut off"
    write_json(run.attempts[0].outcome, {"status": "stopped"})
    assert find([run.root])[0].state == "stopped"


def test_a_folder_that_is_not_there_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "rnus"]) == 2
    assert capsys.readouterr().err == (
        "warmstart: rnus is not a folder of runs: give folders of runs\n"
    )


def test_the_page_links_to_reports_and_runs_nothing(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    browser: Browser,
) -> None:
    Run(runs / "good").page.write_text("<title>the report</title>")
    page = tmp_path / "all" / "runs.html"
    assert main(["runs", "--page", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    with opened(browser, page, width=500) as seen:
        texts = seen.page.locator("tbody th").all_inner_texts()
        assert texts == ["good", "<b>new", "broken"]
        assert seen.page.evaluate("document.scrollingElement.scrollWidth") <= 500
        seen.page.get_by_role("link", name="good").click()
        assert seen.page.title() == "the report"
        assert not seen.complaints and all(r.startswith("file:") for r in seen.requests)
