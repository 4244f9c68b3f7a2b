"""Overlaps that are no evidence of contamination, on made-up statements: boilerplate, scraps, a
story with other numbers.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from common.records import Problem
from data_prep.duplicates.benchmark_index import Candidate, Index
from data_prep.duplicates.decontaminate import Finding, judge
from tests.data_prep.duplicates.contamination import PREAMBLE, finding

BOILERPLATE = (
    "is measured each hour by a careful observer who writes down every figure in a notebook "
    "and reports the largest of them"
)
OPENING = "Nine weighted dice lie in a bag and two of them agree when rolled; their chance "
STATEMENT = Problem("1", OPENING + BOILERPLATE, "5", "ours")
UNRELATED = Problem(
    "2",
    "Zebras grazing inside circular paddocks swap striped hats daily; their mean wait "
    + BOILERPLATE,
    "5",
    "ours",
)
ROWS = {
    "a": "A frog on a lily pad hops left twice as often as it hops right and its speed "
    + BOILERPLATE,
    "b": "Consider all the chords of a circle through a lattice point, whose mean length "
    + BOILERPLATE,
    "c": "Seven pirates divide gold coins by drawing straws every morning, so that a share "
    + BOILERPLATE,
}


def test_an_ngram_of_two_unrelated_benchmark_items_is_boilerplate() -> None:
    alone = finding(ROWS["a"], Index.build([STATEMENT]))
    assert alone is not None and alone.kind == "ngram" and alone.coverage > 0.5
    assert finding(ROWS["a"], Index.build([STATEMENT, UNRELATED])) is None
    # A statement that is nearly all boilerplate does not match by reading like it, either.
    brief = Problem("1", "The chance that dice agree " + BOILERPLATE, "5", "ours")
    assert finding(ROWS["a"], Index.build([brief, UNRELATED])) is None
    assert (
        finding(PREAMBLE + brief.problem.replace("agree", "match"), Index.build([brief, UNRELATED]))
        is not None
    )
    # The same problem in two benchmarks is one: it does not excuse its own copies.
    twin = Problem("3", STATEMENT.problem + ".", "5", "theirs")
    assert finding(ROWS["a"], Index.build([STATEMENT, twin])) is not None


def test_an_ngram_of_three_source_clusters_is_boilerplate_but_not_of_three_copies() -> None:
    index = Index.build([STATEMENT])
    candidates = {row: index.candidates(text) for row, text in ROWS.items()}
    assert judge(candidates, {row: row for row in ROWS}, index) == {}
    assert judge(candidates, {}, index) == {}
    assert set(judge(candidates, dict.fromkeys(ROWS, "one"), index)) == set(ROWS)
    # Whole copies are found whatever the n-grams are worth, and are not what makes them
    # boilerplate.
    copies = {f"copy {i}": index.candidates("really " * i + STATEMENT.problem) for i in range(9)}
    rows = {"a": candidates["a"], **copies}
    assert {row: f.kind for row, f in judge(rows, {}, index).items()} == {
        "a": "ngram",
        "copy 0": "exact",
        **{f"copy {i}": "near" for i in range(1, 9)},
    }


def test_a_statement_under_eight_words_matches_only_itself() -> None:
    index = Index.build(
        [Problem("1", r"Simplify $\sqrt{242}$.", "", "s"), Problem("2", "$+$", "", "s")]
    )
    found = finding(r"simplify \(\sqrt{ 242 }\)", index)
    assert found == Finding("s", "1", "exact", 1.0, "simplify sqrt 242")
    for text in (r"Simplify $\sqrt{242} + \sqrt{98}$.", r"Simplify $\sqrt{243}$.", "", "?", "+"):
        assert finding(text, index) is None


def test_the_same_story_with_other_numbers_is_no_near_match() -> None:
    story = (
        "A shop sells {} pens on Monday and {} pens on Tuesday. "
        "How many pens did the shop sell in both days?"
    )
    index = Index.build([Problem("1", story.format(48, 24), "72", "s")])
    near = finding(story.format(48, 24).replace("pens", "pencils"), index)
    assert (
        near is not None
        and near.kind == "near"
        and near.overlap.startswith("a shop sells 48 … on monday")
    )
    assert not any(c.whole for c in index.candidates(story.format(51, 19)))


TOY = Index.build(
    [STATEMENT, UNRELATED, Problem("4", ROWS["b"], "", "ours"), Problem("5", "Find x", "", "ours")]
)
CANDIDATE = st.builds(
    lambda item, exact, aligned, grams: Candidate(
        item, exact and bool(aligned), aligned, tuple(sorted(grams))
    ),
    st.integers(0, len(TOY.items) - 1),
    st.booleans(),
    st.sampled_from([(), ((0, 2),), ((0, 1), (1, 2))]),
    st.sets(st.integers(0, len(TOY.places) - 1)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=2),
        st.lists(CANDIDATE, max_size=4).map(tuple),
        max_size=12,
    ),
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.sampled_from("xyz")),
    st.randoms(use_true_random=False),
)
def test_judge_does_not_depend_on_any_order(
    rows: dict[str, tuple[Candidate, ...]], clusters: dict[str, str], rng: random.Random
) -> None:
    shuffled = {
        row: tuple(rng.sample(rows[row], len(rows[row])))
        for row in rng.sample(sorted(rows), len(rows))
    }
    other_clusters = {row: clusters[row] for row in rng.sample(sorted(clusters), len(clusters))}
    one, other = judge(rows, clusters, TOY), judge(shuffled, other_clusters, TOY)
    assert list(one.items()) == list(other.items())
