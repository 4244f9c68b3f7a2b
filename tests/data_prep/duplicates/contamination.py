"""Benchmark problems in disguise, and what decontamination finds of them."""

import random
import re
from pathlib import Path

from common.records import Problem
from data_prep.duplicates.benchmark_index import Index
from data_prep.duplicates.decontaminate import Finding, judge

OWN = Path(__file__).parents[1] / "own_problems.jsonl"
"""Statements in the style of each set, written for these tests; their answers are not checked."""
PREAMBLE = (
    "You are a careful mathematician. "
    "Here is a problem from a recent competition for you to think about. "
)
SUFFIX = (
    " Reason step by step, check each of your steps, and put your final answer within \\boxed{}."
)
NAMES = [
    "Oluwaseun",
    "Ingrid",
    "Bartholomew",
    "Xiomara",
    "Thandiwe",
    "Casimir",
    "Wilhelmina",
    "Zebulon",
]


def against(source: list[Problem], index: Index) -> dict[str, Finding]:
    """Findings among the source's problems, each a cluster by itself."""
    found = {p.id: candidates for p in source if (candidates := index.candidates(p.problem))}
    return judge(found, {row: row for row in found}, index)


def finding(text: str, index: Index) -> Finding | None:
    return judge({"row": index.candidates(text)}, {"row": "row"}, index).get("row")


def respaced(text: str, rng: random.Random) -> str:
    spaced = re.sub(r"(?<!\\)([=+(),$])", r" \1 ", text.replace("1,000", "1000"))
    return "".join(rng.choice(["  ", "\n", " \t", "\u00a0"]) if c == " " else c for c in spaced)


def retexed(text: str) -> str:
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text)
    text = re.sub(r"([_^])([A-Za-z0-9])", r"\1{\2}", text)
    text = re.sub(r"\\[dt]?frac(?![a-z])", r"\\dfrac", text)
    return re.sub(r"\(([a-z0-9+ -]+)\)", r"\\left(\1\\right)", text)


def reworded(text: str, rng: random.Random, everyday: list[str], any_token: bool = False) -> str:
    """People renamed, and each word replaced, deleted or followed by another with probability 1/8.

    Formulas and numbers are left alone unless ``any_token``: without them it is another problem.
    """
    known = set(everyday)
    names = sorted(
        {w for w in re.findall(r"(?<![\\A-Za-z])[A-Z][a-z]{2,}\b", text) if w.lower() not in known}
    )
    other = dict(zip(names, rng.sample(NAMES, min(len(names), len(NAMES))), strict=False))
    text = re.sub(
        r"(?<![\\A-Za-z])[A-Z][a-z]{2,}\b", lambda name: other.get(name[0], name[0]), text
    )
    out = []
    for token in text.split():
        if rng.random() < 1 / 8 and (any_token or re.fullmatch(r"[A-Za-z]+[.,;:?]?", token)):
            out += {
                "replace": [rng.choice(everyday)],
                "delete": [],
                "insert": [token, rng.choice(everyday)],
            }[rng.choice(["replace", "delete", "insert"])]
        else:
            out.append(token)
    return " ".join(out)
