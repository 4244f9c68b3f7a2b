"""A page of odd problems and hostile texts, and what a reader does in it."""

from pathlib import Path

from playwright.sync_api import Page

from common.records import Problem

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
    while view.evaluate("location.hash"):  # the page's policy forbids wait_for_function's eval
        view.wait_for_timeout(20)
