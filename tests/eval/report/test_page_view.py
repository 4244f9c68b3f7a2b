"""The HTML report in a real browser: partial runs, numbers as they were written, who may draw
where, the way back.
"""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from common.records import Problem
from eval.generation import rollout_files
from eval.report.html.write import write
from tests.browser import browser as browser
from tests.browser import opened
from tests.eval.report.test_page import made, ordinary
from tests.eval.runs import empty_run, evaluation
from trainer.recipe import load as configs

SPOOFS = (
    r"8\hspace{17.5em}\text{✓ right }_{}\hspace{7em}\text{✓ right}",
    r"\hspace{-60em}8^2",
    r"\color{white}8^2",
    r"8^2\hspace{99999em}9",
    r"8\text{" + " " * 150 + "✓ right}",
    r"\raisebox{9em}{✓ right}_8",
)
PROBLEM = (
    "Is 2**10 + 3**5 odd, and (x)**2 - (y)**2? "
    "**Say so**, **please**.\n## **One** word\n(a)**(b) + (c)**(d)"
)


@pytest.fixture(scope="module")
def spoofed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def answer(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
        return f"<think>\na\n</think>\n\n$\\hspace{{500em}}x$ \\boxed{{{SPOOFS[k]}}}", 100, "stop"

    problems = [Problem("p", PROBLEM, r"\frac{1}{2}", "hostile")]
    return made(tmp_path_factory.mktemp("spoofed"), {"hostile": problems}, len(SPOOFS), answer)


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
            f"step_7 ({missing}), k (rollouts) {k}: 50 %" for k in range(1, rollouts + 1)
        ]
        assert "none" in seen.page.inner_text("#tables")
        assert seen.complaints == []


def test_powers_are_not_emphasis(browser: Browser, spoofed: Path) -> None:
    with opened(browser, spoofed) as seen:
        seen.page.click("#grid button >> nth=0")
        shown = seen.page.inner_text("#panel-body section >> nth=0 >> .text")
        assert shown == PROBLEM.replace("**Say so**, **please**", "Say so, please").replace(
            "## **One** word", "**One** word"
        )
        assert seen.page.locator("#panel-body strong").all_inner_texts() == [
            "Say so",
            "please",
            "**One** word",
        ]


@pytest.mark.parametrize("width", [1400, 390])
def test_an_answer_stays_in_its_field_and_shows_what_it_is(
    browser: Browser, spoofed: Path, width: int
) -> None:
    """Whatever it draws: its field clips it, no field is under another, and its characters are
    beside it.
    """
    with opened(browser, spoofed, width) as seen:
        view = seen.page
        for k, spoof in enumerate(SPOOFS):
            view.locator("#grid button").nth(k).click()
            view.wait_for_selector(f"#panel-title:has-text('rollout {k}')")
            assert view.inner_text("dd >> nth=0 >> .raw").split() == spoof.split()
            fields = view.locator("dd").evaluate_all(
                "all => all.map(n => [n.getBoundingClientRect(), getComputedStyle(n)])"
                ".map(([box, style]) => [box.left, box.top, box.right, box.bottom, style.contain])"
            )
            assert {field[4] for field in fields} == {"paint"}
            for i, a in enumerate(fields):
                assert a[0] >= 0 and a[2] <= width
                assert not [
                    b
                    for b in fields[:i]
                    if b[0] < a[2] and a[0] < b[2] and b[1] < a[3] and a[1] < b[3]
                ]
            body, shown, answer = (
                "#panel-body",
                "dd >> nth=0 >> math",
                "#panel-body div.text >> nth=-1",
            )
            assert view.locator(body).evaluate("n => n.scrollWidth <= n.clientWidth")
            assert view.locator(answer).evaluate("n => n.scrollWidth") < 3000
            colours = [
                view.locator(s).evaluate("n => getComputedStyle(n).color")
                for s in (body, f"{shown} >> mn >> nth=0")
            ]
            assert colours[0] == colours[1]
            assert view.locator(f"{shown} >> mn >> nth=0").bounding_box()["x"] >= fields[0][0]
            view.keyboard.press("Escape")


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
                "document.activeElement.ariaLabel ?? document.activeElement.innerText"
            )
            assert focused.startswith("a-2, rollout 0: right" if moved else "a-1, rollout 4")
            assert view.evaluate("!!document.activeElement.closest('#disagreements')") != moved


def test_the_values_of_the_curves_can_be_read(browser: Browser, spoofed: Path) -> None:
    with opened(browser, spoofed, 390) as seen:
        view = seen.page
        for name, title, label in (
            ("pass@k", "k = 6", "base"),
            ("Accuracy against the budget", "16,384", "step_2"),
        ):
            table = view.get_by_role("region", name=name)
            assert title in table.locator("th").all_inner_texts()
            row = table.locator("tr", has_text=label).locator("td").all_inner_texts()
            assert len(row) > 3 and all(re.fullmatch(r"\d+\.\d\d", value) for value in row[1:])
        boxes = view.locator("main table:not(.cells)").evaluate_all(
            "all => all.map(n => !!n.closest('.scroll'))"
        )
        assert all(boxes) and len(boxes) >= 8
