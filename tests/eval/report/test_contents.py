"""report.md and report.html tell the same; marks are explained where they stand; a bare model's
report has its name.
"""

import html
import re
from pathlib import Path

import pytest

from common.files import write_lock
from eval.report import report
from eval.report.html.write import write as write_page
from eval.results import base_vs_sft
from tests.eval.report.whole_runs import bare, whole
from trainer.recipe import load as configs
from trainer.run import status, step_metrics
from trainer.run.folder import Run

LISTED_BY_SCRIPT = "rollout (set, problem, k)"
"""A table of the report whose like on the page is a list that its script fills."""


def plain(markdown: str) -> str:
    """A line of Markdown as a reader sees it."""
    text = re.sub(r"!\[.*?\]\(.*?\)|^[#\-] *#*|\*\*|`", "", markdown).replace("\\|", "|")
    return " ".join(text.split())


def sections(text: str) -> dict[str, list[str]]:
    """Title -> what a reader sees: sentences, and cells of tables."""
    found: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        rows = [line for line in lines if not line.startswith("|---")]
        cells = [
            cell
            for line in rows
            for cell in (re.split(r"(?<!\\)\|", line) if line.startswith("|") else [line])
        ]
        found[title] = [seen for cell in cells if (seen := plain(cell))]
    return found


def page_sections(page: str) -> dict[str, str]:
    """Heading -> the text below it, up to the next heading."""
    body = page.split("<main>")[1].split("</main>")[0]
    found = {}
    for part in re.split(r"<h[23][^>]*>", body)[1:]:
        title, _, rest = part.partition("</h")
        text = html.unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", "", f"<h{rest}", flags=re.S))
        found[html.unescape(title)] = " ".join(text.split())
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole(tmp_path_factory.mktemp("whole") / "mine")


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return report.write(run, configs.read(run.config)).read_text()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return write_page(run, configs.read(run.config)).read_text()


def test_every_section_of_the_report_is_on_the_page(text: str, page: str) -> None:
    told, shown = sections(text), page_sections(page)
    for title in ("Cost", "Training", "Also evaluated: gsm8k", "Across checkpoints", "RL"):
        assert title in told
    for title, seen in told.items():
        assert title in shown, title
        for cell in seen:
            if LISTED_BY_SCRIPT in cell:
                break
            assert cell in shown[title], (title, cell)


def test_the_headline_and_how_to_read_it_are_on_the_page(text: str, page: str) -> None:
    accuracy = html.unescape(re.sub(r"<[^>]+>", "", page.split('id="charts"')[0]))
    lines = text.split("\n## ")[0].splitlines()[2:]
    for line in (line for line in lines if not line.startswith("|---")):
        cells = line.strip("|").split("|") if line.startswith("|") else [line]
        for cell in map(plain, cells):
            assert cell in " ".join(accuracy.split()), cell
    assert "step_40: 48 of 88 rollouts right" in text


def test_marks_are_explained_where_they_stand(text: str) -> None:
    marked = [part for part in text.split("\n## ") if base_vs_sft.EXACT in part]
    assert len(marked) > 3
    for part in marked:
        assert "† Gaffke's bound, used when" in " ".join(part.split()), part


def test_the_cost_has_every_timed_evaluation_that_is_shown(text: str) -> None:
    cost = text.split("## Cost")[1].split("\n## ")[0]
    assert "| evaluation of step_40 (aime2025+amc2023) | 0.05 CPU process-hours |" in cost
    assert "| evaluation of step_40 (gsm8k) | 0.05 CPU process-hours |" in cost


def test_status_and_report_have_one_mean_rate(run: Run, text: str) -> None:
    values = status.status(run)
    mean = step_metrics.rate_line(values["mean_tokens_per_s"])
    assert mean == "mean 3 tokens/s" and values["last_tokens_per_s"] == 2
    assert f", {mean}, " in text.split("## Training")[1]
    assert dict(status.fields(values, {}))["training"].endswith(f", {mean}")
    with write_lock(run.lock):
        told = dict(status.fields(status.status(run), {}))["training"]
    assert f", {mean} (2 in the last step)" in told


def test_ids_are_unique(page: str) -> None:
    ids = re.findall(r'<[a-z0-9]+ [^>]*?\bid="([^"]+)"', page)
    assert len(ids) > 20 and len(ids) == len({*ids})


def test_a_bare_model_has_its_name_and_no_column_of_sft(tmp_path: Path) -> None:
    run = bare(tmp_path)
    config = configs.read(run.config)
    text, page = report.write(run, config).read_text(), write_page(run, config).read_text()
    head = text.split("\n\n")[1].splitlines()
    assert head[0] == "| pass@1 | Small-Model |" and head[2].startswith(
        "| aime2025 (10 problems) |"
    )
    body = page.split("<main>")[1].split('<script type="application/json"')[0]
    told = re.sub(r"<[^>]+>", " ", body)
    assert "| model | `owner/Small-Model` |" in text and "owner/Small-Model" in told
    for seen in (text, told):
        words = re.sub(r"@base-[0-9a-f]+", "", seen)
        for word in (r"\bbase\b", r"\bSFT\b", "improvement", "not evaluated", "no dataset"):
            assert not re.search(word, words), word
    assert '"label":"Small-Model"' in page and '<span class="key base">Small-Model' in page
    assert "Starting RL from Small-Model:" in text and "otherwise train it first" in text
    assert "| evaluation of Small-Model (aime2025+amc2023) | 0.05 CPU process-hours |" in text
