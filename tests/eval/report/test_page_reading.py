"""Reading rollouts in the HTML report: labels, filters, order, search, links, two evaluations side
by side, and what the keyboard does.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from common.records import Problem
from tests.browser import Opened, contrast, opened
from tests.browser import browser as browser
from tests.eval.report.pages import made

SMUGGLED = "<img src=x onerror='window.ran = 1'>"
ODD = "a/b #1%é &beside=2"
PROBLEMS = [
    Problem(ODD, "Find $\\frac{1}{2} \\times x^2$\n\n  if x is 4.", "8", "odd"),
    Problem("plus", "What is 1 + 1?", "2", "odd"),
    Problem(SMUGGLED, f"{SMUGGLED} <b>What</b> is \u202e it?", "4", "odd"),
    Problem("minus", "What is 9 - 4?", "5", "odd"),
]
WRONG = "I guess \\boxed{-1}."


def answer(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
    """Base has all of "minus" right, and rollout 0 of "plus". Step 2 has none of "minus" right,
    half of "plus", all of the others; its rollout 3 of "plus" is cut off, rollout 2 right for
    math-verify alone.
    """
    if label == "base":
        is_right = problem.id == "minus" or (problem.id == "plus" and k == 0)
        answer = problem.answer if is_right else "-1"
        return f"The answer is \\boxed{{{answer}}}.", 50, "stop"
    if problem.id == "minus":
        return WRONG, 9, "stop"
    if problem.id == "plus" and k == 3:
        return "<think>\nOn and on", 99, "length"
    extra = ".00 + 0" if problem.id == "plus" and k == 2 else ""
    thought = f"İ Needle {k} in a haystack, {SMUGGLED}"
    said = f"So **a plain\tneedle {k}** and $x^2$ give \\boxed{{{problem.answer}{extra}}}."
    return f"<think>\n{thought}\n</think>\n\n{said}", 1234, "stop"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("odd"), {"odd": PROBLEMS}, 4, answer)


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Opened]:
    with opened(browser, file) as seen:
        yield seen
        assert {url.partition("#")[0] for url in seen.requests} == {file.as_uri()}
        assert seen.complaints == []
        assert seen.page.evaluate("window.ran") is None
        assert seen.page.locator("main img, dialog img, dialog b").count() == 0


def cell(view: Page, id: str, k: int) -> str:
    p = [problem.id for problem in PROBLEMS].index(id)
    return f'#grid button[data-p="{p}"][data-k="{k}"]'


def shown(view: Page) -> list[str]:
    """Rows of the grid: first word of the problem's id, and the k of the cells that are shown."""
    return view.locator("#grid tr").evaluate_all(
        "rows => rows.map(r => r.querySelector('th').title.slice(5, 9) + ' '"
        " + [...r.querySelectorAll('button')].map(b => b.dataset.k).join(''))"
    )


def search(view: Page, text: str, expected: str) -> None:
    view.fill("#search", "")
    view.wait_for_selector("#count:text-is('16 rollouts, 4 problems')")
    view.fill("#search", text)
    view.wait_for_selector(f"#count:text-is('{expected}')")


def open_at(view: Page, file: Path, hash: str) -> None:
    """Opens a link in a page that was not open before."""
    view.goto("about:blank")
    view.goto(file.as_uri() + hash)


def title(view: Page, text: str) -> None:
    view.wait_for_selector(f"#panel[open] #panel-title:has-text({text!r})")


def close(view: Page) -> None:
    """Closes the panel and waits until it has given the focus back."""
    view.keyboard.press("Escape")
    view.wait_for_function("location.hash === ''")


def test_rows_are_named_by_the_words_of_their_problems(page: Opened) -> None:
    heads = page.page.locator("#grid th")
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
    page.page.click(cell(page.page, ODD, 1))
    title(page.page, f"{ODD}, rollout 1")


def test_a_box_without_dollars_is_maths(page: Opened) -> None:
    view = page.page
    view.click(cell(view, "minus", 0))
    view.wait_for_selector("#panel menclose")
    assert view.text_content("#panel menclose") == "−1"
    assert "\\boxed" not in view.inner_text("article section")


def test_filters_leave_what_they_name(page: Opened) -> None:
    view = page.page
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


def test_the_order_can_begin_with_the_wrong_ones(page: Opened) -> None:
    view = page.page
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


def test_a_search_finds_problems_answers_and_texts(page: Opened) -> None:
    view = page.page
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


def test_an_opened_rollout_has_its_matches_marked(page: Opened) -> None:
    view = page.page
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


def test_keys_go_through_what_is_shown(page: Opened) -> None:
    view = page.page
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


def test_a_link_opens_its_rollout(page: Opened, file: Path) -> None:
    view = page.page
    view.click(cell(view, ODD, 2))
    title(view, ODD)
    link = view.evaluate("location.hash")
    assert link == "#rollout=step_2/odd/a%2Fb%20%231%25%C3%A9%20%26beside%3D2/2"
    close(view)
    open_at(view, file, link)
    title(view, f"{ODD}, rollout 2 right, step_2")
    view.evaluate("hash => { location.hash = hash }", link.replace("step_2", "base"))
    title(view, f"{ODD}, rollout 2 wrong, base")
    assert view.locator("#evaluation input").nth(0).is_checked()
    for works in (True, False):
        view.evaluate(
            "works => Object.defineProperty(navigator, 'clipboard', { configurable: true, value: "
            "{ writeText: async (text) => { if (!works) throw Error(); window.copied = text } } })",
            works,
        )
        view.click("#copy")
        view.wait_for_selector("#copied:text-is('copied')" if works else "#link")
    uri = file.as_uri() + link.replace("step_2", "base")
    assert view.evaluate("window.copied") == view.input_value("#link") == uri


@pytest.mark.parametrize(
    "hash",
    [
        "nothing/odd/plus/0",
        "step_2/odd/plus/4",
        "step_2/odd/gone/0",
        "step_2/odd/%E0%A4%A/0",
        "step_2/odd/plus/0/0",
        f"{SMUGGLED}/odd/plus/0",
        "__proto__/constructor/0/0",
        "",
    ],
)
def test_a_link_to_nothing_is_a_line(page: Opened, file: Path, hash: str) -> None:
    view = page.page
    assert view.is_hidden("#notice")
    open_at(view, file, f"#rollout={hash}")
    view.wait_for_selector("#notice:has-text('names no rollout')")
    assert not view.locator("#panel").evaluate("n => n.open")
    view.click("#dismiss")
    assert view.is_hidden("#notice")


def test_base_and_step_stand_side_by_side(page: Opened, file: Path) -> None:
    view = page.page
    view.click(cell(view, "minus", 1))
    title(view, "minus")
    view.click("#pair")
    view.wait_for_selector("article >> nth=1")

    def columns() -> list[str]:
        names = view.locator("article").evaluate_all("all => all.map(n => n.ariaLabel)")
        return [f"{name}: {text}" for name, text in zip(names, answers(), strict=True)]

    def answers() -> list[str]:
        return view.locator("article .text menclose").all_text_contents()

    assert columns() == ["base, rollout 1: 5", "step_2, rollout 1: −1"]
    left, right = (view.locator("article").nth(i).bounding_box() for i in (0, 1))
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    view.click("article >> nth=0 >> .picks button >> nth=3")
    view.wait_for_selector("article[aria-label='base, rollout 3']")
    assert view.evaluate("document.activeElement.ariaLabel") == "rollout 3: right"
    assert columns() == ["base, rollout 3: 5", "step_2, rollout 1: −1"]
    view.click("article >> nth=1 >> .picks button >> nth=2")
    view.wait_for_selector("article[aria-label='step_2, rollout 2']")
    assert columns() == ["base, rollout 3: 5", "step_2, rollout 2: −1"]
    link = view.evaluate("location.hash")
    assert link == "#rollout=step_2/odd/minus/2&beside=3"
    view.focus("#panel-body")
    view.keyboard.press("ArrowLeft")
    view.wait_for_selector("article[aria-label='step_2, rollout 1']")
    assert view.locator("article").count() == 2
    open_at(view, file, link)
    view.wait_for_selector("article >> nth=1")
    assert columns() == ["base, rollout 3: 5", "step_2, rollout 2: −1"]
    view.set_viewport_size({"width": 700, "height": 900})
    upper, lower = (view.locator("article").nth(i).bounding_box() for i in (0, 1))
    assert upper["y"] + upper["height"] <= lower["y"] and upper["x"] == lower["x"]
    assert view.locator("#panel-body").evaluate("n => n.scrollWidth <= n.clientWidth")
    view.click("#pair")
    view.wait_for_selector("article >> nth=1", state="detached")
    close(view)
    view.check("#evaluation input >> nth=0", force=True)
    view.click(cell(view, "minus", 1))
    view.wait_for_selector("#pair:disabled")


def test_thinking_stays_as_the_reader_left_it(page: Opened) -> None:
    view = page.page
    view.click(cell(view, ODD, 0))
    title(view, "rollout 0")
    assert not view.is_visible("details .text")
    view.click("summary")
    view.wait_for_selector("details .text")
    view.keyboard.press("ArrowRight")
    title(view, "rollout 1")
    assert view.is_visible("details .text")
    view.reload()
    title(view, "rollout 1")
    assert view.is_visible("details .text")
    view.click("summary")
    view.reload()
    title(view, "rollout 1")
    assert not view.is_visible("details .text")


def test_thinking_stays_within_the_page_where_storage_is_refused(page: Opened) -> None:
    view = page.page
    view.add_init_script(
        "Object.defineProperty(window, 'localStorage', "
        "{ get() { throw new DOMException('denied', 'SecurityError') } })"
    )
    view.reload()
    view.click(cell(view, ODD, 0))
    title(view, "rollout 0")
    view.click("summary")
    view.keyboard.press("ArrowRight")
    title(view, "rollout 1")
    assert view.is_visible("details .text")


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
