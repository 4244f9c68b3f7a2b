"""The HTML report in a real browser: what it shows, what mouse and keyboard do, that it is
self-contained.
"""

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from common.records import Problem
from eval.generation import rollout_files
from eval.report.html.write import write
from tests.browser import Opened, contrast, opened
from tests.browser import browser as browser
from tests.data_prep.openr1 import thought
from tests.eval.report.pages import made, ordinary
from tests.eval.report.reading import close
from tests.eval.runs import empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run.folder import Run

CONTRASTS = (
    "body",
    ".lead",
    "nav a",
    "figcaption .key",
    "#tables td",
    ".chip .number",
    ".share",
    "#count",
    *(f"button.{state}" for state in "rwtn"),
)


@pytest.fixture
def page(browser: Browser, plain: Path) -> Iterator[Opened]:
    with opened(browser, plain) as seen:
        yield seen
        assert seen.requests == [plain.as_uri()]
        assert seen.complaints == []


def cell(name: str) -> str:
    return f'#grid button[title^="{name}:"]'


def outcomes(view: Page) -> list[str]:
    return view.locator("#legend li:has(.sample)").evaluate_all(
        "all => all.map(n => n.textContent)"
    )


def test_a_click_opens_the_rollout_with_its_maths(page: Opened) -> None:
    view = page.page
    assert view.locator("#grid table").count() == 2 and view.locator("#grid button").count() == 60
    signs = [view.locator(cell(f"a-3, rollout {k}")).inner_text() for k in range(5)]
    assert signs == ["✓", "✗", "T", "–", "✗"]
    assert outcomes(view) == ["✓right 12", "✗wrong 24", "Ttruncated 12", "–no box 12"]
    view.click(cell("a-3, rollout 0"))
    view.wait_for_selector("#panel[open]")
    shown = view.locator("#panel").inner_text()
    facts = (
        "a-3, rollout 0",
        "step_2",
        "extracted\n3",
        "1,234",
        "stop",
        "1000",
        '["a", "a-3", 0]',
        "Thinking",
    )
    for expected in facts:
        assert expected in shown
    assert view.locator("#panel-body section msqrt mn").text_content() == "3"
    assert view.locator("#panel strong").all_inner_texts() == ["So"]
    assert view.locator("#panel menclose").bounding_box()["width"] > 8
    assert "Let" not in shown and view.locator("details math").count() == 0
    view.click("summary")
    view.wait_for_selector("details msup")
    assert (
        view.evaluate("getComputedStyle(document.querySelector('details math')).display") == "math"
    )


def test_the_keyboard_does_what_the_mouse_does(page: Opened) -> None:
    view = page.page

    def focused() -> str:
        return view.evaluate("document.activeElement.title || document.activeElement.id").split(
            ":"
        )[0]

    view.focus("#legend li:last-child button")
    view.keyboard.press("Tab")
    assert focused() == "a-0, rollout 0"
    for key in (
        "ArrowRight",
        "ArrowDown",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "End",
        "ArrowRight",
        "ArrowDown",
    ):
        view.keyboard.press(key)
    assert focused() == "a-2, rollout 4"
    view.keyboard.press("Tab")
    assert focused() == "b-0, rollout 0"
    view.keyboard.press("Shift+Tab")
    assert focused() == "a-2, rollout 4"
    view.keyboard.press("Enter")
    view.wait_for_selector("#panel[open]")
    assert focused() == "panel-body" and "a-2, rollout 4" in view.inner_text("#panel-title")
    view.keyboard.press("ArrowRight")
    view.wait_for_selector("#panel-title:has-text('a-3, rollout 0')")
    view.keyboard.press("Escape")
    view.wait_for_selector("#panel:not([open])", state="attached")
    assert focused() == "a-3, rollout 0"


def test_base_and_step_can_be_chosen_and_disagreements_open(page: Opened) -> None:
    view = page.page
    assert "step_2: 12 rollouts" in view.inner_text("#disagreements")
    view.click("#disagreements button >> nth=0")
    view.wait_for_selector("#panel[open]")
    assert "a-0, rollout 4" in view.inner_text("#panel-title")
    view.click("#close")
    view.focus("#evaluation input:checked")
    view.keyboard.press("ArrowLeft")
    assert outcomes(view) == ["✓right 0", "✗wrong 60", "Ttruncated 0", "–no box 0"]
    assert "agree" in view.inner_text("#disagreements")


def test_the_figures_are_there(page: Opened) -> None:
    view = page.page
    rows = view.locator(".headline tr").all_inner_texts()
    assert rows[3].startswith("all (12 problems)") and "20.00 %" in rows[3]
    titles = view.locator("#charts figcaption").all_inner_texts()
    assert [t.split("\n")[0] for t in titles] == [
        "pass@k, all problems",
        "Accuracy against the budget",
        "Length of the rollouts",
        "Training loss",
        "Token entropy",
        "Token accuracy",
    ]
    hints = view.locator("svg title").all_text_contents()
    assert "step_2, k (rollouts) 5: 100.00 %" in hints and "base, k (rollouts) 5: 0.00 %" in hints
    assert "step_2, budget (tokens) 32,768: 20.00 %" in hints
    assert "held out, step 40: 0.5000" in hints and "training, step 40: 80.00 %" in hints
    text = view.inner_text("main")
    for expected in ("c0ffee", "RL readiness", "Published figures"):
        assert expected in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 700, 390])
def test_it_fits_and_can_be_read(browser: Browser, plain: Path, scheme: str, width: int) -> None:
    """Nothing is wider than the window, and text has at least the contrast that WCAG 2 asks for
    (AA: 4.5).
    """
    with opened(browser, plain, width, scheme) as seen:
        view = seen.page
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        for selector in CONTRASTS:
            assert contrast(view, selector) >= 4.5, selector


def test_what_is_missing_is_said_and_not_counted(
    browser: Browser, plain: Path, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(plain.parent, tmp_path / "sft_4b")))
    (folder,) = (e for e in run.evaluations if "@step_2-" in e.name)
    (folder / "manifest.json").unlink()
    lines = (folder / rollout_files.ROLLOUTS).read_text().splitlines(keepends=True)
    (folder / rollout_files.ROLLOUTS).write_text("".join(lines[:40]))
    with opened(browser, write(run, configs.read(run.config), partial=True)) as seen:
        assert "step_2 is not finished (partial: 20 rollouts" in seen.page.inner_text(".warning")
        assert (
            "b 6 problems, 20.0 % right, 20 missing"
            in seen.page.locator("#grid h3").all_inner_texts()
        )
        assert seen.page.inner_text(cell("b-2, rollout 0")) == "?"
        seen.page.click(cell("b-2, rollout 0"), force=True)
        seen.page.click(cell("b-1, rollout 4"))
        seen.page.wait_for_selector("#panel[open]")
        assert seen.page.locator("#panel-title").inner_text().startswith("✗b-1, rollout 4")
        assert seen.complaints == []


@pytest.mark.parametrize("rollouts", [1, 2])
def test_a_partial_view_may_lack_points_of_pass_at_k(
    browser: Browser, tmp_path: Path, rollouts: int
) -> None:
    """No problem has all of its four rollouts."""
    run = empty_run(tmp_path)
    folder = evaluation(
        run, "step_7", {"a": 6}, lambda p, k: p.answer if int(p.answer) % 2 else "x", complete=False
    )
    lines = (folder / rollout_files.ROLLOUTS).read_text().splitlines(keepends=True)
    kept = [line for i in range(4) for line in lines[4 * i : 4 * i + rollouts]]
    (folder / rollout_files.ROLLOUTS).write_text("".join(kept))
    with opened(browser, write(run, configs.read(run.config), partial=True)) as seen:
        missing = f"partial: {24 - 4 * rollouts} rollouts missing"
        assert missing in seen.page.inner_text(".warning")
        hints = seen.page.locator("figure >> nth=0 >> title").all_text_contents()
        assert hints == [
            f"step_7 ({missing}), k (rollouts) {k}: 50.00 %" for k in range(1, rollouts + 1)
        ]
        assert "none" in seen.page.inner_text("#tables")
        assert seen.complaints == []


def test_closing_leads_back_to_where_it_was_opened(browser: Browser, tmp_path: Path) -> None:
    file = made(
        tmp_path, {"a": [Problem(f"a-{i}", "?", str(i), "a") for i in range(6)]}, 5, ordinary
    )
    with opened(browser, file) as seen:
        view = seen.page
        for moved in (False, True):
            view.focus("#disagreements button >> nth=1")
            view.keyboard.press("Enter")
            view.wait_for_selector("#panel-title:has-text('a-1, rollout 4')")
            if moved:
                view.keyboard.press("ArrowRight")
                view.wait_for_selector("#panel-title:has-text('a-2, rollout 0')")
            view.keyboard.press("Escape")
            view.wait_for_selector("#panel:not([open])", state="attached")
            focused = view.evaluate(
                "document.activeElement.title || document.activeElement.innerText"
            )
            assert focused.startswith("a-2, rollout 0: right" if moved else "a-1, rollout 4")
            assert view.evaluate("!!document.activeElement.closest('#disagreements')") != moved


@pytest.mark.slow
def test_sixteen_hundred_long_rollouts_fit(browser: Browser, tmp_path: Path) -> None:
    """100 problems x 16 rollouts x 100,000 characters: at most 30 MB, cut where it says so, and
    open at a click.
    """
    prose = thought(random.Random(0), 400_000)

    def answer(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
        if label == "base":
            return f"\\boxed{{{k}}}", 20, "stop"
        at = random.Random(f"{problem.id} {k}").randrange(len(prose) - 100_000)
        return (
            f"<think>\n{formulas(prose[at : at + 99_960], at)}</think>\n\nIt is \\boxed{{{k}}}.",
            30_000,
            "stop",
        )

    problems = [Problem(f"p{i}", "What is it?", str(i % 16), "long") for i in range(100)]
    file = made(tmp_path, {"long": problems}, 16, answer)
    assert 10_000_000 < file.stat().st_size <= 30_000_000
    with opened(browser, file) as seen:
        view = seen.page
        assert view.locator("#grid button").count() == 1600
        view.locator(cell("p57, rollout 9")).click()
        view.wait_for_selector("#panel[open]")
        view.click("summary")
        view.wait_for_selector("details .cut")
        (cut,) = view.locator(".cut").all_inner_texts()
        kept = sum(len(t) for t in view.locator("details .text").all_text_contents())
        assert int(re.sub(r"\D", "", cut)) > 70_000 and kept > 5_000
        assert '["long", "p57", 9]' in view.inner_text(
            "dl"
        ) and "rollouts.jsonl" in view.inner_text(".whole")
        close(view)
        view.fill("#search", "\\boxed{9}")
        view.wait_for_selector("#count:text-is('100 of 1,600 rollouts, 100 of 100 problems')")
        assert seen.complaints == []


def formulas(text: str, seed: int) -> str:
    """The text with a formula of its own after every twelfth word."""
    words = text.split(" ")
    words[::12] = [
        f"{word} $x_{{{seed + i}}}^2 = \\frac{{{i}}}{{7}}$" for i, word in enumerate(words[::12])
    ]
    return " ".join(words)[: len(text)]
