"""The HTML report in a real browser: what it shows, that it is self-contained, that nothing a model
wrote can run.
"""

import json
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from common.files import write_json, write_text
from common.records import Problem, Rollout
from eval import evaluate
from eval.generation import rollout_files
from eval.report.html.write import write
from tests.browser import Opened, contrast, opened
from tests.browser import browser as browser
from tests.data_prep.openr1 import thought
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.step_metrics import StepMetrics

HOSTILE = (
    "<script>window.ran = 1</script></script><img src=x onerror='window.ran = 1'><!-- \u2028\u2029 "
    "\0 \x1b[2J \u202e&lt;b&gt; ]]> ${window.ran = 1} {{ 7 * 7 }} <svg onload=window.ran=1> "
)
FORMULAS = (
    r"$\href{javascript:window.ran=1}{x}$ $\text{<img src=x onerror=window.ran=1>}$ "
    r"$\class{\" onclick=window.ran=1}{x}$ $\color{red;background:url(http://127.0.0.1/)}x$ "
    r"$\frac{1}{2}$"
)
CONTRASTS = (
    "body",
    ".lead",
    "nav a",
    "figcaption .key",
    "#tables td",
    *(f"button.{state}" for state in "rwtn"),
)
Answer = Callable[[str, Problem, int], tuple[str, int, str]]
"""(label, problem, k) -> text, tokens and finish reason of a rollout."""


def made(folder: Path, sets: dict[str, list[Problem]], n: int, answer: Answer) -> Path:
    """The page of a run whose base model and step 2 gave ``answer``'s rollouts, graded and counted
    by the real code.
    """
    for name, problems in sets.items():
        lines = (
            json.dumps({"id": p.id, "problem": p.problem, "answer": p.answer}) + "\n"
            for p in problems
        )
        write_text(folder / "bench" / f"{name}.jsonl", "".join(lines))
    values = [
        f"eval.sets=[{','.join(sets)}]",
        f"eval.rollouts={n}",
        f"eval.benchmarks={folder}/bench",
    ]
    config = configs.load("sft_4b", [f"run.root={folder}/runs", f"data.dir={folder}/data", *values])
    write_text(folder / "data" / "sft_4b" / "tokenizer" / "tokenizer.json", "{}")
    run = Run(folder / "runs" / "sft_4b")
    configs.write(config, run.config)
    attempt = run.new_attempt()
    configs.write(config, attempt.config)
    write_json(
        attempt.provenance, {"git": "c0ffee", "versions": {"verl": "0.9.1"}, "first_step": 0}
    )
    write_text(attempt.metrics, "".join(step(i).json() for i in range(1, 41)))
    write_json(
        run.export(2) / "manifest.json", {"step": 2, "parameters": 1, "dataset": "x", "files": {}}
    )
    for label in (BASE, ModelLabel(2)):
        planned = evaluate.plan(config, run, label)
        planned.folder.mkdir(parents=True)
        with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
            for problem in (p for problems in sets.values() for p in problems):
                for k in range(n):
                    text, tokens, finish = answer(str(label), problem, k)
                    key = (problem.set, problem.id, k)
                    rollout_files.append(
                        f, Rollout(key, 1000 + k, text, tokens, finish, "engine-0", 2.5)
                    )
        evaluate.evaluate(config, run, label)
    return write(run, config)


def step(number: int) -> StepMetrics:
    return StepMetrics(
        step=number,
        total=40,
        epoch=1,
        loss=1 / number,
        grad_norm=1.0,
        lr=1e-5,
        tokens=7200,
        tokens_per_s=2.0,
        tokens_per_s_per_gpu=1.0,
        mfu=0.5,
        seconds=3600.0,
        mean_seconds=3600.0,
        data_seconds=0.1,
        balance=0.9,
        fill=0.9,
        peak_memory_gb=30.0,
        eta_s=0.0,
        skipped=False,
        val_loss=0.5 if number % 10 == 0 else None,
    )


def ordinary(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
    """Rollouts 0 to 4: right, wrong, cut off, without a box, and right for math-verify alone; base:
    all wrong.
    """
    if label == "base":
        return "The answer is \\boxed{-1}.", 50, "stop"
    boxed = "<think>\nLet $x^2 = 4$.\n</think>\n\n**So** $x = 2$ and \\[\\boxed{%s}\\]"
    return (
        (boxed % problem.answer, 1234, "stop"),
        (boxed % "-1", 2345, "stop"),
        ("<think>\nOn and on", 32768, "length"),
        ("<think>\na\n</think>\n\nI give up.", 345, "stop"),
        (boxed % f"{problem.answer}.00 + 0", 456, "stop"),
    )[k]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def of(name: str) -> list[Problem]:
        return [Problem(f"{name}-{i}", f"What is $\\sqrt{{{i}}}$?", str(i), name) for i in range(6)]

    return made(tmp_path_factory.mktemp("plain"), {"a": of("a"), "b": of("b")}, 5, ordinary)


@pytest.fixture
def page(browser: Browser, plain: Path) -> Iterator[Opened]:
    with opened(browser, plain) as seen:
        yield seen
        assert seen.requests == [plain.as_uri()]
        assert seen.complaints == []


def cell(name: str) -> str:
    return f'#grid button[aria-label^="{name}:"]'


def test_a_click_opens_the_rollout_with_its_maths(page: Opened) -> None:
    view = page.page
    assert view.locator("#grid table").count() == 2 and view.locator("#grid button").count() == 60
    signs = [view.locator(cell(f"a-3, rollout {k}")).inner_text() for k in range(5)]
    assert signs == ["✓", "✗", "T", "–", "✗"]
    assert view.locator("#legend li").all_inner_texts() == [
        "✓right 12",
        "✗wrong 24",
        "Ttruncated 12",
        "–no box 12",
    ]
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
        label = view.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"
        )
        return label.split(":")[0]

    view.focus("#choice input:checked")
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
    view.focus("#choice input:checked")
    view.keyboard.press("ArrowLeft")
    assert view.locator("#legend li").all_inner_texts() == [
        "✓right 0",
        "✗wrong 60",
        "Ttruncated 0",
        "–no box 0",
    ]
    assert "agree" in view.inner_text("#disagreements")


def test_the_figures_are_there(page: Opened) -> None:
    view = page.page
    rows = view.locator(".headline tr").all_inner_texts()
    assert rows[3].startswith("all (12 problems)") and "20.00 %" in rows[3]
    titles = view.locator("figcaption").all_inner_texts()
    assert [t.split("\n")[0] for t in titles] == [
        "pass@k, all problems",
        "Accuracy against the budget",
        "Length of the rollouts",
        "Training loss",
    ]
    hints = view.locator("svg title").all_text_contents()
    assert "step_2, k (rollouts) 5: 100 %" in hints and "base, k (rollouts) 5: 0 %" in hints
    assert "step_2, budget (tokens) 32.768K: 20 %" in hints
    assert "held out, step 40: 0.5" in hints
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
            in seen.page.locator("#grid caption").all_inner_texts()
        )
        assert seen.page.inner_text(cell("b-2, rollout 0")) == "?"
        seen.page.click(cell("b-2, rollout 0"), force=True)
        seen.page.click(cell("b-1, rollout 4"))
        seen.page.wait_for_selector("#panel[open]")
        assert seen.page.locator("#panel-title").inner_text().startswith("✗b-1, rollout 4")
        assert seen.complaints == []


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
        assert seen.complaints == []


def formulas(text: str, seed: int) -> str:
    """The text with a formula of its own after every twelfth word."""
    words = text.split(" ")
    words[::12] = [
        f"{word} $x_{{{seed + i}}}^2 = \\frac{{{i}}}{{7}}$" for i, word in enumerate(words[::12])
    ]
    return " ".join(words)[: len(text)]
