"""An opened rollout of the HTML report in a real browser: links, two evaluations side by side,
thinking.
"""

from pathlib import Path

import pytest

from tests.browser import Opened
from tests.browser import browser as browser
from tests.eval.report.reading import ODD, SMUGGLED, cell, close, open_at, title


def test_a_link_opens_its_rollout(reader: Opened, odd: Path) -> None:
    view = reader.page
    view.click(cell(view, ODD, 2))
    title(view, ODD)
    link = view.evaluate("location.hash")
    assert link == "#rollout=step_2/odd/a%2Fb%20%231%25%C3%A9%20%26beside%3D2/2"
    close(view)
    open_at(view, odd, link)
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
    uri = odd.as_uri() + link.replace("step_2", "base")
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
def test_a_link_to_nothing_is_a_line(reader: Opened, odd: Path, hash: str) -> None:
    view = reader.page
    assert view.is_hidden("#notice")
    open_at(view, odd, f"#rollout={hash}")
    view.wait_for_selector("#notice:has-text('does not name a rollout')")
    assert not view.locator("#panel").evaluate("n => n.open")
    view.click("#dismiss")
    assert view.is_hidden("#notice")


def test_base_and_step_stand_side_by_side(reader: Opened, odd: Path) -> None:
    view = reader.page
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
    open_at(view, odd, link)
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


def test_thinking_stays_as_the_reader_left_it(reader: Opened) -> None:
    view = reader.page
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


def test_thinking_stays_within_the_page_where_storage_is_refused(reader: Opened) -> None:
    view = reader.page
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
