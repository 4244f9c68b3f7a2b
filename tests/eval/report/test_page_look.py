"""The page's look in a browser: in print, in a narrow window, its colours, and where axes end."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.plots import COLOURS, COLOURS_ON_DARK
from eval.report.html.charts import Axis, count, number
from eval.report.html.write import write
from tests.browser import Browser, contrast, opened
from tests.browser import browser as browser
from tests.eval.report.whole_runs import bare, whole
from trainer.recipe import load as configs

A4 = 703
"""Width of a page of A4 between print.css's margins, in CSS pixels."""
WHITE = "rgb(255, 255, 255)"
CUT_OFF = """() => [...document.querySelectorAll("main .scroll, figure, .tile, svg, table")]
  .filter((node) => node.checkVisibility())
  .filter((node) => node.scrollWidth > node.clientWidth + 1
    || node.getBoundingClientRect().right > innerWidth + 1)
  .map((node) => node.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = whole(tmp_path_factory.mktemp("whole") / "mine")
    return write(run, configs.read(run.config))


@pytest.fixture(params=["light", "dark"])
def printed(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, file, A4, request.param) as seen:
        seen.page.emulate_media(media="print")
        yield seen.page


def style(page: Any, selector: str, name: str) -> str:
    return page.eval_on_selector(selector, f"node => getComputedStyle(node).{name}")


def test_nothing_is_cut_off_in_print(printed: Any) -> None:
    assert printed.evaluate("document.documentElement.scrollWidth") <= A4
    assert printed.evaluate(CUT_OFF) == []
    assert printed.locator("#checkpoints table").is_visible()
    assert printed.locator("#cost table").is_visible()


def test_charts_and_tables_stay_whole_in_print(printed: Any) -> None:
    for selector in ("figure", ".scroll", "tr", ".tile"):
        assert style(printed, selector, "breakInside") == "avoid", selector
    assert style(printed, "h2", "breakAfter") == "avoid"


def test_print_is_light_and_leaves_controls_out(printed: Any) -> None:
    for selector in ("body", "#cost .scroll", "figure"):
        assert style(printed, selector, "backgroundColor") == WHITE, selector
    assert contrast(printed, "#cost td") >= 7
    for selector in ("nav", "#grid", "#rollouts fieldset", "#disagreements"):
        assert not printed.locator(selector).first.is_visible(), selector
    note = printed.evaluate(
        "getComputedStyle(document.getElementById('rollouts'), '::after').content"
    )
    assert "not printed: open report.html" in note and printed.locator("#rollouts h2").is_visible()


def test_the_page_prints_to_a_few_sheets(browser: Browser, file: Path) -> None:
    with opened(browser, file) as seen:
        pdf = seen.page.pdf(prefer_css_page_size=True)
    pages = re.findall(rb"/Type\s*/Page\b", pdf)
    assert 5 <= len(pages) <= 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_has_no_sideways_scroll(browser: Browser, file: Path, scheme: str) -> None:
    with opened(browser, file, 500, scheme) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 500
        assert seen.page.locator(".scroll").count() > 10


@pytest.mark.parametrize(
    ("scheme", "colours"), [("light", COLOURS), ("dark", COLOURS_ON_DARK)], ids=["light", "dark"]
)
def test_lines_have_the_colours_of_the_pictures(
    browser: Browser, file: Path, scheme: str, colours: dict[str, str]
) -> None:
    with opened(browser, file, scheme=scheme) as seen:
        kinds = seen.page.evaluate(
            "[...document.querySelectorAll('svg .line')].map((n) => n.classList[1])"
        )
        assert {*kinds} == {*COLOURS}
        for kind, colour in colours.items():
            canvas = seen.page.evaluate(
                """kind => {
                  const node = document.querySelector(`svg .line.${kind}`);
                  const drawn = document.createElement("canvas").getContext("2d");
                  drawn.fillStyle = getComputedStyle(node).stroke;
                  drawn.fillRect(0, 0, 1, 1);
                  return [...drawn.getImageData(0, 0, 1, 1).data];
                }""",
                kind,
            )
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert canvas == [*wanted, 255], kind


def test_models_of_one_kind_have_shades(browser: Browser, file: Path) -> None:
    with opened(browser, file) as seen:
        one, other = (
            style(seen.page, f"#charts svg .line.rl{shade}", "stroke")
            for shade in (":not(.shade-1)", ".shade-1")
        )
        assert one != other


@pytest.mark.parametrize("budget", [32_768, 100])
def test_axes_of_tokens_end_at_the_budget(browser: Browser, tmp_path: Path, budget: int) -> None:
    run = bare(tmp_path, max_tokens=budget, tokens=lambda problem, k: budget // (k + 2))
    with opened(browser, write(run, configs.read(run.config))) as seen:
        for title in ("Accuracy against the budget", "Length of the rollouts"):
            figure = seen.page.locator("figure", has_text=title)
            labels = figure.locator("text[text-anchor=middle]").all_text_contents()
            assert f"{budget:,}" in labels
            place = figure.locator("svg text", has_text=re.compile(f"^{budget:,}$")).first
            end = figure.locator("line.axis").get_attribute("x2")
            assert float(place.get_attribute("x")) == float(end)
            drawn = " ".join(path.get_attribute("d") for path in figure.locator("path").all())
            assert max(float(x) for x in re.findall(r"[MLH]([0-9.]+)", drawn)) <= float(end)


def test_axes_end_at_round_values() -> None:
    def ends(low: float, high: float) -> tuple[float, float]:
        axis = Axis("", low, high, number, count).ending_at_ticks()
        assert axis.ticks()[0] == axis.low and axis.ticks()[-1] == axis.high
        return axis.low, axis.high

    assert ends(0, 0.37) == pytest.approx((0, 0.4))
    assert ends(0, 1.0) == ends(0, 0.99) == pytest.approx((0, 1))
    assert ends(0.0866, 0.2004) == pytest.approx((0.08, 0.22))
    assert ends(0, 0.0) == pytest.approx((0, 1)) and ends(0, 2743) == pytest.approx((0, 3000))
    assert [number(v) for v in (1e-8, 2.5e-5, 0.001, 0.25, 3, 12_345)] == [
        "1e-8",
        "2.5e-5",
        "0.001",
        "0.25",
        "3",
        "12,345",
    ]
