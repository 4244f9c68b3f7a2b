"""The HTML report in a real browser: nothing that a model wrote can run, draw over other fields or
change the page's text.
"""

import re
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from common.records import Problem
from tests.browser import browser as browser
from tests.browser import opened
from tests.eval.report.pages import made

HOSTILE = (
    "<script>window.ran = 1</script></script><img src=x onerror='window.ran = 1'><!-- \u2028\u2029 "
    "\0 \x1b[2J \u202e&lt;b&gt; ]]> ${window.ran = 1} {{ 7 * 7 }} <svg onload=window.ran=1> "
)
FORMULAS = (
    r"$\href{javascript:window.ran=1}{x}$ $\text{<img src=x onerror=window.ran=1>}$ "
    r"$\class{\" onclick=window.ran=1}{x}$ $\color{red;background:url(http://127.0.0.1/)}x$ "
    r"$\frac{1}{2}$"
)
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


def test_what_a_model_wrote_stays_text(browser: Browser, tmp_path: Path) -> None:
    def answer(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
        text = HOSTILE + FORMULAS
        return f"<think>\n{text}\ud800\n</think>\n\n{text} \\boxed{{{HOSTILE}\ud800}}", 100, "stop"

    names = ["p", '"><script>window.ran=1</script>']
    problems = [
        Problem(name, HOSTILE + FORMULAS, f"\\text{{{HOSTILE}}}", "hostile") for name in names
    ]
    file = made(tmp_path, {"hostile": problems}, 2, answer)
    with opened(browser, file) as seen:
        view = seen.page
        for i in range(4):
            view.locator("#grid button").nth(i).click()
            view.wait_for_selector("#panel[open]")
            if i == 0:
                view.click("summary")
            view.wait_for_selector("details .text")
            shown = view.locator("#panel-body").evaluate("node => node.textContent")
            for part in (
                "<script>window.ran = 1</script>",
                "</script><img src=x onerror='window.ran = 1'>",
                "<!--",
            ):
                assert shown.count(part) >= 4
            assert r"\href{javascript:window.ran=1}{x}" in shown
            assert "<img\xa0src=x\xa0onerror" in view.locator("#panel mtext").first.text_content()
            assert view.locator("#panel mfrac").count() >= 3
            strangers = "dialog :is(script, img, svg, a, iframe, [onclick], [href], [src])"
            assert view.locator(strangers).count() == 0
            view.keyboard.press("Escape")
        assert view.evaluate("window.ran") is None
        assert (seen.requests, seen.complaints) == ([file.as_uri()], [])


def test_the_policy_bites(browser: Browser, plain: Path, tmp_path: Path) -> None:
    """A page into which markup did get runs none of it and asks for nothing."""
    file = tmp_path / "smuggled.html"
    with socket.create_server(("127.0.0.1", 0)) as server, opened(browser, plain) as seen:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        markup = f"<script>window.ran = 1</script><img src='{url}' onerror='window.ran = 1'></body>"
        file.write_text(plain.read_text().replace("</body>", markup))
        seen.page.goto(file.as_uri())
        seen.page.click("#grid button >> nth=0")
        seen.page.wait_for_selector("#panel[open]")
        assert seen.page.evaluate("window.ran") is None
        with pytest.raises(Error, match="TrustedHTML"):
            seen.page.evaluate("document.body.innerHTML = '<b>x</b>'")
        seen.page.evaluate(f"fetch('{url}').catch(() => null)")
        assert sum("Content Security Policy" in text for text in seen.complaints) >= 3
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture(scope="module")
def spoofed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def answer(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
        return f"<think>\na\n</think>\n\n$\\hspace{{500em}}x$ \\boxed{{{SPOOFS[k]}}}", 100, "stop"

    problems = [Problem("p", PROBLEM, r"\frac{1}{2}", "hostile")]
    return made(tmp_path_factory.mktemp("spoofed"), {"hostile": problems}, len(SPOOFS), answer)


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


def test_the_values_of_the_curves_can_be_read(browser: Browser, spoofed: Path) -> None:
    number = r"\d+\.\d\d( % \[\d+\.\d, \d+\.\d\]†?)?"
    with opened(browser, spoofed, 390) as seen:
        view = seen.page
        for name, title, label in (
            ("pass@k", "k = 6", "base"),
            ("Accuracy against the budget", "16,384", "step_2"),
        ):
            table = view.get_by_role("region", name=name)
            assert title in table.locator("th").all_inner_texts()
            row = table.locator("tr", has_text=label).locator("td").all_inner_texts()
            assert len(row) > 3 and all(re.fullmatch(number, value) for value in row[1:])
        boxes = view.locator("main table:not(.cells)").evaluate_all(
            "all => all.map(n => !!n.closest('.scroll'))"
        )
        assert all(boxes) and len(boxes) >= 8
