"""The grid of the HTML report in a real browser: labels, filters, order, search, and what the
keyboard does.
"""

from pathlib import Path

from playwright.sync_api import Browser

from common.records import Problem
from tests.browser import Opened, contrast, opened
from tests.browser import browser as browser
from tests.eval.report.pages import made
from tests.eval.report.reading import ODD, SMUGGLED, cell, close, search, shown, title


def test_rows_are_named_by_the_words_of_their_problems(reader: Opened) -> None:
    heads = reader.page.locator("#grid th")
    assert heads.all_text_contents() == [
        "Find 1/2 × x² if x is 4.",
        "What is 1 + 1?",
        f"{SMUGGLED} <b>What</b> is \u202e it?",
        "What is 9 - 4?",
    ]
    assert heads.nth(0).get_attribute("title") == f"odd, {ODD}"
    assert heads.nth(2).locator("span").evaluate("n => getComputedStyle(n).unicodeBidi") == (
        "isolate"
    )
    reader.page.click(cell(reader.page, ODD, 1))
    title(reader.page, f"{ODD}, rollout 1")


def test_a_box_without_dollars_is_maths(reader: Opened) -> None:
    view = reader.page
    view.click(cell(view, "minus", 0))
    view.wait_for_selector("#panel menclose")
    assert view.text_content("#panel menclose") == "−1"
    assert "\\boxed" not in view.inner_text("article section")


def test_filters_leave_what_they_name(reader: Opened) -> None:
    view = reader.page
    chips = {
        name: view.locator(f"#legend button:has-text('{name}')")
        for name in ("right", "wrong", "truncated", "graders disagree", "changed against base")
    }
    assert chips["changed against base"].inner_text().endswith("3 problems")
    assert view.inner_text("#count") == "16 rollouts, 4 problems"
    chips["wrong"].click()
    assert shown(view) == ["plus 2", "minu 0123"]
    assert view.inner_text("#count") == "5 of 16 rollouts, 2 of 4 problems"
    assert chips["wrong"].get_attribute("aria-pressed") == "true"
    chips["truncated"].click()
    assert shown(view) == ["plus 23", "minu 0123"]
    chips["graders disagree"].click()
    assert shown(view) == ["plus 2"]
    view.click("#clear")
    assert len(shown(view)) == 4 and view.is_hidden("#clear")
    assert chips["wrong"].get_attribute("aria-pressed") == "false"
    chips["changed against base"].click()
    chips["right"].click()
    assert shown(view) == ["a/b  0123", "<img 0123"]
    view.check("#evaluation input >> nth=0", force=True)
    assert shown(view) == ["plus 0", "minu 0123"]
    assert chips["changed against base"].count() == 0


def test_the_order_can_begin_with_the_wrong_ones(reader: Opened) -> None:
    view = reader.page
    orders = {}
    for name in ("wrong", "lost", "gained", "set"):
        view.select_option("#order", name)
        orders[name] = [row[:4] for row in shown(view)]
    assert orders["wrong"] == orders["lost"] == ["minu", "plus", "a/b ", "<img"]
    assert orders["gained"] == ["a/b ", "<img", "plus", "minu"]
    assert orders["set"] == ["a/b ", "plus", "<img", "minu"]
    changes = view.locator("#grid tr").evaluate_all(
        "rows => rows.map(r => [r.querySelector('.share'), r.querySelector('.delta')]"
        ".map(n => n.textContent).join(' '))"
    )
    assert changes == ["4/4 +4", "2/4 +1", "4/4 +4", "0/4 −4"]


def test_a_search_finds_problems_answers_and_texts(reader: Opened) -> None:
    view = reader.page
    search(view, "NEEDLE 2", "3 of 16 rollouts, 3 of 4 problems")
    assert shown(view) == ["a/b  2", "plus 2", "<img 2"]
    assert view.locator("#grid .hit").count() == 3
    assert "found in its text" in view.locator("#grid .hit >> nth=0").get_attribute("aria-label")
    search(view, "What is 1", "4 of 16 rollouts, 1 of 4 problems")
    assert shown(view) == ["plus 0123"] and view.locator("#grid .hit").count() == 0
    search(view, "\\boxed{8}", "4 of 16 rollouts, 1 of 4 problems")
    search(view, "minus", "4 of 16 rollouts, 1 of 4 problems")
    search(view, SMUGGLED, "11 of 16 rollouts, 3 of 4 problems")
    view.check("#evaluation input >> nth=0", force=True)
    view.wait_for_selector("#count:text-is('4 of 16 rollouts, 1 of 4 problems')")
    search(view, "nowhere", "0 of 16 rollouts, 0 of 4 problems")
    assert shown(view) == []
    view.press("#search", "Escape")
    view.wait_for_selector("#count:text-is('16 rollouts, 4 problems')")
    assert view.input_value("#search") == ""


def test_an_opened_rollout_has_its_matches_marked(reader: Opened) -> None:
    view = reader.page
    search(view, "plain needle", "11 of 16 rollouts, 3 of 4 problems")
    view.click(cell(view, ODD, 1))
    title(view, ODD)
    assert view.locator("#panel mark").all_text_contents() == ["plain\tneedle"]
    assert view.locator("#panel strong").all_inner_texts() == ["a plain\tneedle 1"]
    assert view.locator("details[open]").count() == 0
    assert view.inner_text("#match") == "Match 1 of 1" and contrast(view, "#panel mark") >= 4.5
    close(view)
    search(view, "needle", "11 of 16 rollouts, 3 of 4 problems")
    view.click(cell(view, ODD, 0))
    title(view, "rollout 0")
    assert view.inner_text("summary").endswith("1 match)") and not view.is_visible("details mark")
    view.keyboard.press("n")
    assert view.inner_text("#match") == "Match 1 of 2" and view.is_visible("details mark.current")
    assert view.locator("details mark").all_text_contents() == ["Needle"]
    close(view)
    search(view, "haystack", "11 of 16 rollouts, 3 of 4 problems")
    view.click(cell(view, ODD, 0))
    view.wait_for_selector("details[open] mark.current:text-is('haystack')")
    close(view)
    search(view, "$x^2$", "11 of 16 rollouts, 3 of 4 problems")
    view.click(cell(view, "plus", 0))
    title(view, "plus")
    assert view.locator("#panel math.hit msup").count() == 1
    assert view.locator("#panel math:not(.hit)").count() == 1


def test_keys_go_through_what_is_shown(reader: Opened) -> None:
    view = reader.page
    view.keyboard.press("/")
    assert view.evaluate("document.activeElement.id") == "search"
    view.keyboard.type("needle 1 in")
    view.wait_for_selector("#count:text-is('3 of 16 rollouts, 3 of 4 problems')")
    view.keyboard.press("ArrowDown")

    def focused() -> list[str]:
        return view.evaluate("Object.values(document.activeElement.dataset)")

    assert focused() == ["0", "1"]
    view.keyboard.press("ArrowRight")
    assert focused() == ["0", "1"]
    view.keyboard.press("ArrowDown")
    assert focused() == ["1", "1"]
    view.keyboard.press("Enter")
    title(view, "plus, rollout 1 right, step_2, 2 of 3")
    view.keyboard.press("ArrowRight")
    title(view, f"{SMUGGLED}, rollout 1")
    view.keyboard.press("ArrowRight")
    view.click("#previous")
    title(view, "plus, rollout 1")
    view.click(".picks button >> nth=3")
    title(view, "plus, rollout 3 truncated, step_2, not in the grid's selection")
    close(view)
    assert focused() == ["1", "1"]
    view.keyboard.press("/")
    view.keyboard.press("Escape")
    view.wait_for_selector("#count:text-is('16 rollouts, 4 problems')")


def test_single_rollouts_are_packed_until_few_are_left(browser: Browser, tmp_path: Path) -> None:
    def of_one(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
        return f"\\boxed{{{problem.answer if int(problem.answer) % 20 else 'x'}}}", 9, "stop"

    problems = [Problem(f"p{i}", f"What is {i}?", str(i), "one") for i in range(70)]
    with opened(browser, made(tmp_path, {"one": problems}, 1, of_one)) as seen:
        view = seen.page
        heads = view.locator("#grid th")
        assert heads.all_inner_texts() == [
            "1 to 16",
            "17 to 32",
            "33 to 48",
            "49 to 64",
            "65 to 70",
        ]
        label = view.locator("#grid button >> nth=17").get_attribute("aria-label")
        assert label == "What is 17?, rollout 0: right, 9 tokens"
        view.click("#legend button:has-text('wrong')")
        assert heads.all_inner_texts() == [f"What is {i}?" for i in (0, 20, 40, 60)]
        assert seen.complaints == []
