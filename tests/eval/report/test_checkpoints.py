"""The evaluated checkpoints side by side, in report, picture and page."""

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from common.plots import COLOURS
from data_prep import rules
from eval.report import checkpoints, report
from eval.report.checkpoints import Checkpoints
from eval.report.html.write import write as write_page
from eval.results import base_vs_sft
from tests.browser import Browser, opened
from tests.browser import browser as browser
from tests.eval.report.whole_runs import cut, trained, whole
from tests.eval.runs import SETS, empty_run, evaluation, first
from trainer.recipe import load as configs
from trainer.run import step_metrics
from trainer.run.folder import Run


def found(run: Run) -> Checkpoints | None:
    return checkpoints.find(base_vs_sft.newest(run), step_metrics.read(run))


def lines(run: Run) -> list[list[str]]:
    of = found(run)
    assert of is not None
    table = checkpoints.section(of).split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_a_line_per_checkpoint_with_the_base_model_as_step_0(tmp_path: Path) -> None:
    run = whole(tmp_path / "mine")
    titles, _, base, ten, twenty, forty = lines(run)
    assert titles[1:] == [
        "pass@1",
        "pass@4",
        "hit the budget",
        "median rollout, tokens",
        "held-out loss",
        "held-out entropy",
    ]
    assert [line[0] for line in (base, ten, twenty, forty)] == [
        "base",
        "step_10",
        "step_20",
        "step_40",
    ]
    # 6 of 22 problems in three of four rollouts, then 10 of 22.
    assert ten[1].startswith("20.45 % [") and ten[2].startswith("27.27 % [")
    assert twenty[1].startswith("34.09 % [") and twenty[3:] == [
        "25.00 %",
        "1,010",
        "0.4000",
        "0.2000",
    ]
    assert base[3:] == ["25.00 %", "1,010", "–", "–"] and forty[3:] == ["0.00 %", "1,010", "–", "–"]


def test_it_is_in_the_report_with_its_picture_in_the_common_colours(tmp_path: Path) -> None:
    run = whole(tmp_path / "mine")
    text = report.write(run, configs.read(run.config)).read_text()
    section = text.split("## Across checkpoints\n\n")[1].split("\n## ")[0]
    assert section.startswith(
        "The evaluated steps of SFT, with the base model as step 0, on aime2025, amc2023, the"
    )
    assert section.rstrip().endswith("![checkpoints](checkpoints.png)")
    assert "avg_" not in section and "rl_" not in section
    pixels = imread(run.checkpoints_picture)[..., :3].reshape(-1, 3)
    for kind in ("base", "sft", "held-out"):
        assert (abs(pixels - to_rgb(COLOURS[kind])) < 0.005).all(axis=1).any(), kind


@pytest.mark.parametrize("labels", [["step_10"], ["base"], ["base", "avg_10_20"]])
def test_fewer_than_two_are_not_drawn(tmp_path: Path, labels: list[str]) -> None:
    run = empty_run(tmp_path / "mine")
    for label in labels:
        evaluation(run, label, SETS, first(3))
    assert found(run) is None
    text = report.write(run, configs.read(run.config)).read_text()
    assert "Across checkpoints" not in text and not run.checkpoints_picture.exists()


def test_only_what_was_evaluated_and_graded_like_the_headline_counts(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    for label in ("base", "step_30"):
        evaluation(run, label, SETS, first(3))
    evaluation(run, "step_20", SETS, first(3), max_tokens=100)
    older = evaluation(run, "step_10", SETS, first(3), grader=rules.ANSWERS - 1)
    assert [line[0] for line in lines(run)[2:]] == ["base", "step_30"]
    of = found(run)
    assert of is not None and f"`warmstart grade {older}`" in checkpoints.section(of)


def test_one_rollout_per_problem_has_no_pass_at_n_and_no_curve_without_values(
    tmp_path: Path,
) -> None:
    run = empty_run(tmp_path / "mine")
    for label in ("step_10", "step_20"):
        evaluation(run, label, SETS, first(3), rollouts=1)
    of = found(run)
    assert of is not None and lines(run)[0][1:3] == ["pass@1", "hit the budget"]
    assert [panel.title for panel in checkpoints.panels(of)] == [
        "pass@1",
        "Hit the budget",
        "Median rollout (tokens)",
    ]
    assert "error bars hold the intervals of pass@1 over" in checkpoints.section(of)


def test_a_partial_evaluation_is_marked(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    evaluation(run, "step_10", SETS, first(3))
    folder = evaluation(run, "step_20", SETS, first(3), complete=False)
    rollouts = folder / "rollouts.jsonl"
    rollouts.write_text("".join(rollouts.read_text().splitlines(keepends=True)[:-8]))
    of = checkpoints.find(base_vs_sft.newest(run, partial=True), [])
    assert of is not None
    assert "| step_20 (partial: 8 rollouts missing) | " in checkpoints.section(of)


def test_the_page_draws_them_with_error_bars(browser: Browser, tmp_path: Path) -> None:
    run = whole(tmp_path / "mine")
    with opened(browser, write_page(run, configs.read(run.config))) as seen:
        part = seen.page.locator("#checkpoints")
        assert [t.split("\n")[0] for t in part.locator("figcaption").all_inner_texts()] == [
            "pass@1",
            "pass@4",
            "Hit the budget",
            "Median rollout (tokens)",
            "Held-out loss (nats per token)",
            "Held-out entropy (nats per token)",
        ]
        hints = part.locator("title").all_text_contents()
        (hint,) = (h for h in hints if h.startswith("SFT, step 10: 20.45 % ["))
        low, high = lines(run)[3][1].split("[")[1].rstrip("]").split(", ")
        ends = [float(end.strip(" %]")) for end in hint.split("[")[1].split(", ")]
        assert [f"{end:.1f}" for end in ends] == [low, high]
        assert "base, step 0: 25.00 %" in hints and "held out, step 20: 0.4000" in hints
        bars = part.locator("figure >> nth=0 >> path.bars.sft").get_attribute("d")
        assert bars.count("V") == 4
        assert part.locator("figure >> nth=2 >> path.bars").count() == 0
        assert seen.complaints == []


def test_steps_are_in_order_whatever_was_evaluated_first(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    trained(run, {})
    for label in ("step_20", "step_9", "base"):
        evaluation(run, label, SETS, cut(3))
    assert [line[0] for line in lines(run)[2:]] == ["base", "step_9", "step_20"]
