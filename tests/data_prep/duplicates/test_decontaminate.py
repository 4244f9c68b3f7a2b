"""Decontamination on problems of our own and on the real benchmark files: what it must catch, and
what it must leave alone.
"""

import random
import re
from collections import Counter, defaultdict
from itertools import cycle
from pathlib import Path

import pytest

from common.records import Problem
from data_prep.benchmarks.sets import load, read_problems
from data_prep.duplicates import benchmark_index
from data_prep.duplicates.benchmark_index import Index
from data_prep.duplicates.normalise_text import words
from tests.data_prep.duplicates.contamination import (
    OWN,
    PREAMBLE,
    SUFFIX,
    against,
    finding,
    respaced,
    retexed,
    reworded,
)

SETS = ["aime2024", "aime2025", "aime2026", "amc2023", "math500", "gsm8k_test"]
PLANTED = ["aime2025", "aime2026", "amc2023"]


@pytest.fixture(scope="module")
def real(benchmarks: Path) -> dict[str, list[Problem]]:
    return {name: load(benchmarks, [name], None) for name in [*SETS, "gsm8k_train"]}


@pytest.fixture(scope="module", params=["own", "real"])
def problems(request: pytest.FixtureRequest) -> dict[str, list[Problem]]:
    if request.param == "real":
        return request.getfixturevalue("real")
    found = defaultdict(list)
    for p in read_problems(OWN):
        found[p.set].append(p)
    return found


@pytest.fixture(scope="module")
def index(problems: dict[str, list[Problem]]) -> Index:
    return Index.build([p for name in SETS for p in problems[name]])


@pytest.fixture(scope="module")
def everyday(problems: dict[str, list[Problem]]) -> list[str]:
    return everyday_words(problems)


def everyday_words(problems: dict[str, list[Problem]]) -> list[str]:
    """Lower-case words of the two largest sets."""
    text = " ".join(p.problem for name in ("math500", "gsm8k_test") for p in problems[name])
    return sorted(set(re.findall(r"\b[a-z]{2,}\b", text)))


# What is left alone.


def test_aime_2024_and_the_t0_sets_flag_nothing(problems: dict[str, list[Problem]]) -> None:
    t0 = [p for name in PLANTED for p in problems[name]]
    assert against(problems["aime2024"], Index.build(t0)) == {}
    assert against(t0, Index.build(problems["aime2024"])) == {}


def test_every_set_against_the_others_flags_nothing(problems: dict[str, list[Problem]]) -> None:
    for name in SETS:
        others = Index.build([p for other in SETS if other != name for p in problems[other]])
        assert against(problems[name], others) == {}, name


def test_gsm8k_train_flags_nothing_of_math500(problems: dict[str, list[Problem]]) -> None:
    assert against(problems["gsm8k_train"], Index.build(problems["math500"])) == {}


def test_gsm8k_train_shares_three_problems_with_gsm8k_test(real: dict[str, list[Problem]]) -> None:
    """Two of 7,473 rows tell a story of the test set with other numbers, and one with some other
    numbers.
    """
    index = Index.build([p for name in SETS for p in real[name]])
    found = against(real["gsm8k_train"], index)
    assert Counter((f.set, f.kind) for f in found.values()) == {
        ("gsm8k_test", "ngram"): 2,
        ("gsm8k_test", "near"): 1,
    }
    assert {f.overlap for f in found.values() if f.kind == "ngram"} == {
        "miles in 3 hours at the same rate how many additional hours would it take to travel an "
        "additional"
    }
    assert next(f.overlap for f in found.values() if f.kind == "near").startswith(
        "a salesman bought a case of 48 … for 576 he sold 17 of them for"
    )


@pytest.mark.parametrize(("length", "least"), [(13, 18), (8, 28)])
def test_naive_ngrams_hit_unrelated_aime_problems(
    real: dict[str, list[Problem]], length: int, least: int
) -> None:
    """Any shared n-gram would flag a fifth (13 words) or a third (8) of the 90 AIME problems, ours
    none.
    """

    def ngrams(p: Problem) -> set[str]:
        text = words(p.problem)
        return {" ".join(text[i : i + length]) for i in range(len(text) - length + 1)}

    years = {name: real[name] for name in SETS if name.startswith("aime")}
    hit = 0
    for name, year in years.items():
        others = [p for other in years if other != name for p in years[other]]
        theirs = set().union(*map(ngrams, others))
        hit += sum(bool(ngrams(p) & theirs) for p in year)
        assert against(year, Index.build(others)) == {}
    assert hit >= least


def test_shared_boilerplate_is_no_evidence(index: Index) -> None:
    text = (
        "A spinning top wobbles with probability $p$ each second. The expected number of wobbles "
        "in a minute can be written as $\\frac{m}{n}$, where $m$ and $n$ are relatively prime "
        "positive integers. Find $m+n$."
    )
    assert finding(text, index) is None


def test_the_order_of_the_benchmarks_changes_no_finding(problems: dict[str, list[Problem]]) -> None:
    some = [p for name in SETS for p in problems[name]][:300]
    shuffled = random.Random(0).sample(some, len(some))
    rows = [Problem(str(i), p.problem + SUFFIX, "", "") for i, p in enumerate(some[:150])]
    assert against(rows, Index.build(some)) == against(rows, Index.build(shuffled))


# What is caught.


def test_every_planted_copy_is_caught(problems: dict[str, list[Problem]], index: Index) -> None:
    for name in PLANTED:
        for p in problems[name]:
            exact = {
                "verbatim": p.problem,
                "re-TeXed": retexed(p.problem),
                "lower case": p.problem.lower(),
            }
            near = {
                "re-spaced": respaced(p.problem, random.Random(p.id)),
                "embedded": PREAMBLE + p.problem + SUFFIX,
                "all": PREAMBLE + respaced(retexed(p.problem), random.Random(p.id)) + SUFFIX,
            }
            for form, text in {**exact, **near}.items():
                found = finding(text, index)
                assert found is not None and (found.set, found.id) == (name, p.id), (
                    name,
                    p.id,
                    form,
                )
                assert found.kind == "exact" or form in near, (name, p.id, form)
                assert found.coverage > 0.9


OPTIONS = {
    "none": "",
    "one line": r" $\textbf{(A) }\frac 56 \qquad \textbf{(B) } 7 \qquad \textbf{(C)} 2\sqrt3$",
    "lines": "\n(A) $12$\n(B) $\\frac{7}{3}$\n(C) $40$\n(D) $9$\n(E) none of these",
    "letters": "\nA. 12\nB. 14\nC. 16\nD. 18",
}
HEADINGS = ["", "Problem 11\n", "Example 3. ", "12. (5 points) ", "**Question 7:** "]


def contest_wording(problem: str) -> str | None:
    """The question as the contest asks it, without the compilation's sentence on the answer."""
    question, *form = re.split(r"(?: The final answer| The answer can| Write the answer)", problem)
    return re.sub(r"\b(?:Calculate|Find|find) the\b", "what is the", question) if form else None


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("heading", HEADINGS)
def test_the_contests_own_wording_is_caught(
    problems: dict[str, list[Problem]], index: Index, heading: str, options: str
) -> None:
    reworded = [(p, text) for p in problems["amc2023"] if (text := contest_wording(p.problem))]
    assert len(reworded) >= 4
    for p, text in reworded:
        found = finding(heading + text + OPTIONS[options], index)
        assert found is not None and (found.set, found.id) == (p.set, p.id), text


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_short_statement_is_caught_with_heading_and_options(
    problems: dict[str, list[Problem]], index: Index, heading: str
) -> None:
    short = [p for p in problems["math500"] if len(words(p.problem)) < 8]
    assert short
    for p in short:
        for options in OPTIONS.values():
            found = finding(heading + p.problem + options, index)
            assert found is not None and (found.kind, found.id) == ("exact", p.id), p


def test_formulas_are_caught_verbatim(problems: dict[str, list[Problem]], index: Index) -> None:
    """Also inside a longer text, unless the statement has fewer than eight words."""
    for p in problems["math500"]:
        found = finding(p.problem, index)
        assert found is not None and (found.kind, found.id) == ("exact", p.id)
        if len(words(p.problem)) >= 8:
            found = finding(PREAMBLE + p.problem + SUFFIX, index)
            assert found is not None and found.id == p.id, p


@pytest.mark.parametrize("seed", range(5))
def test_every_planted_rewording_is_caught(
    problems: dict[str, list[Problem]], index: Index, everyday: list[str], seed: int
) -> None:
    for name in PLANTED:
        for p in problems[name]:
            text = reworded(p.problem, random.Random(f"{seed} {name} {p.id}"), everyday)
            for planted in (text, PREAMBLE + retexed(text) + SUFFIX):
                found = finding(planted, index)
                assert found is not None and (found.set, found.id) == (name, p.id), (
                    name,
                    p.id,
                    planted,
                )


def test_a_partial_copy_is_caught_by_its_ngrams(
    problems: dict[str, list[Problem]], index: Index
) -> None:
    """Two thirds of a statement, then another problem."""
    kinds: Counter[str | None] = Counter()
    for name in PLANTED:
        for p, other in zip(problems[name], cycle(problems["gsm8k_train"]), strict=False):
            tokens = p.problem.split()
            found = finding(" ".join(tokens[: len(tokens) * 2 // 3]) + " " + other.problem, index)
            kinds[found.kind if found and (found.set, found.id) == (name, p.id) else None] += 1
    assert kinds["ngram"] + kinds["near"] >= 90 or (kinds[None] <= 2 and kinds.total() < 100), kinds


@pytest.mark.slow
def test_the_thresholds_are_the_knee(
    real: dict[str, list[Problem]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints misses among reworded and embedded plants against false positives over every pair of
    sets.
    """
    everyday = everyday_words(real)
    indexes = {
        s: Index.build([p for o in SETS if o != s for p in real[o]]) for s in [*SETS, "gsm8k_train"]
    }
    plants = {
        any_token: [
            (
                p,
                PREAMBLE
                + reworded(p.problem, random.Random(f"{seed} {p.set} {p.id}"), everyday, any_token)
                + SUFFIX,
            )
            for name in PLANTED
            for p in real[name]
            for seed in range(10)
        ]
        for any_token in (False, True)
    }

    def score(near: float, numbers: float) -> tuple[int, int, int]:
        monkeypatch.setattr(benchmark_index, "NEAR", near)
        monkeypatch.setattr(benchmark_index, "NUMBERS", numbers)
        missed = [
            sum(
                (f := finding(text, indexes["gsm8k_train"])) is None
                or (f.set, f.id) != (p.set, p.id)
                for p, text in plants[any_token]
            )
            for any_token in (False, True)
        ]
        false = sum(len(against(real[s], indexes[s])) for s in indexes)
        print(f"{near:6.2f} {numbers:8.2f} {missed[0]:18} {missed[1]:18} {false:16}")
        return missed[0], missed[1], false

    print("\n  NEAR  NUMBERS  missed of 1000   ..formulas changed too   false positives")
    scores = {
        (n, k): score(n, k) for n in (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85) for k in (0.0, 0.5, 1.0)
    }
    assert scores[0.65, 0.5] == (0, scores[0.65, 0.5][1], 3)
    assert scores[0.5, 0.5][2] > 3 and scores[0.65, 0.0][2] > 3
    assert scores[0.8, 0.5][0] > 0 and scores[0.65, 1.0][1] > 100
