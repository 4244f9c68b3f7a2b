"""An index that finds the benchmark items that a problem may equal, contain or reword; a worker
looks up each row.

The module ``decontaminate`` then judges this evidence, once every row is known. The constants are
at the knee of a sweep over the real benchmark files (in its test).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, repeat

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

from common.records import Problem
from data_prep.duplicates.normalise_text import is_symbol, words
from data_prep.duplicates.statement import bare_words

LONG_NGRAM = 13
"""Words per n-gram, as for GPT-3 and in most later reports."""
SHORT_NGRAM = 8
"""Words per n-gram for statements of fewer than SHORT_STATEMENT words."""
SHORT_STATEMENT = 2 * LONG_NGRAM
"""In a statement of fewer words than this (26), one changed word in the middle can break every
13-gram.
"""
SHORTEST = SHORT_NGRAM
"""Statements with fewer words ("Simplify √242") are found by exact match only: many problems have a
similar window of three or four words.
"""
HALF = 0.5
"""Minimum share of a statement's own words (those outside boilerplate) that n-grams must cover."""
NEAR = 0.65
"""Minimum similarity of a near match: the share of the statement's own words that the window has,
in order. With one word in eight changed and the people renamed, all of 500 planted problems reach
it. Of 12,000 problems of school books and contests, none is wrongly removed; at 0.6, nine are.
"""
RELATED = 0.8
"""Minimum similarity, in both directions, of two benchmark items that count as one problem. Above
NEAR, so that shared boilerplate does not join different problems into one family.
"""
NUMBERS = 0.5
"""Minimum share of the statement's numbers that a near match must have: the same story with other
numbers is another problem.
"""
REAL_WORDS = 5
"""Minimum number of real words ("chord", not "x", "12" or "sin") in the evidence. Formulas of
unrelated problems share runs of digits and variables: with 3 words, 11 of these problems are
wrongly removed; with 4 words, four.
"""
VERBATIM = 0.8
"""Minimum share of all words, and of the symbols, that a near match with fewer real words must
have: a formula counts only if nearly all of the statement is there.
"""
SHINGLE = 3
"""Words per shingle; shared shingles choose which statements are compared. With one word in eight
changed, two thirds of them survive.
"""
RARE = 20
"""A shingle in more statements than this ("how many does") is ignored. Values from 10 to 200 give
the same results but not the same time.
"""
SHARED_SHINGLES = 0.2
"""Minimum share of a statement's rare shingles that a row must have to be compared with it."""

Spans = tuple[tuple[int, int], ...]
"""(start, end) of runs of words in a statement, end exclusive."""

_UNKNOWN = "\0"  # stands for every word that is in no benchmark


@dataclass(frozen=True)
class Item:
    """One benchmark statement."""

    set: str
    id: str
    words: tuple[str, ...]
    text: str
    """One character per word; a word has the same character throughout an index."""
    numbers: Counter[str]
    """Number of occurrences of each number, keyed by its character in ``text``."""
    own: frozenset[int] = frozenset()
    """Positions of the words that are not boilerplate: outside runs of SHORT_NGRAM that another
    family has too.
    """
    real: frozenset[int] = frozenset()
    """Those among them that are real words, not symbols."""

    @property
    def ngram(self) -> int:
        """Words per n-gram of this statement."""
        return SHORT_NGRAM if len(self.text) < SHORT_STATEMENT else LONG_NGRAM

    def likeness(self, covered: Set[int]) -> float:
        """Returns the share of the statement's own words among these positions, 0 to 1."""
        return len(self.own & covered) / max(1, len(self.own))

    def in_words(self, covered: Set[int]) -> bool:
        """Whether these positions hold enough of the statement's own real words to be evidence."""
        return len(self.real & covered) >= REAL_WORDS

    def in_full(self, covered: Set[int]) -> bool:
        """Whether these positions are nearly the whole statement, formulas included."""
        symbols = self.own - self.real
        return len(covered) >= VERBATIM * len(self.text) and len(
            symbols & covered
        ) >= VERBATIM * len(symbols)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The evidence that a problem matches one benchmark item."""

    item: int
    """Position in ``Index.items``."""
    exact: bool
    aligned: Spans
    """The statement's words that an exact or near match shares, in order; empty if it is neither.
    """
    grams: tuple[int, ...]
    """Shared n-grams: positions in ``Index.places``, ascending."""

    @property
    def whole(self) -> bool:
        """Whether it is an exact or near match rather than only shared n-grams."""
        return bool(self.aligned)


@dataclass(frozen=True)
class Index:
    """The benchmark items with their lookup tables. Immutable."""

    items: tuple[Item, ...]
    families: tuple[int, ...]
    """For each item, the first item of its family: items of one family count as the same problem.
    """
    lexicon: Mapping[str, str]
    """Word -> character."""
    texts: Mapping[str, tuple[int, ...]]
    """Encoded problem, with and without the form of its answer -> items that have it."""
    shingles: Mapping[str, tuple[int, ...]]
    """Rare shingle -> items of at least SHORTEST words that have it."""
    least: tuple[float, ...]
    """For each item, how many of its rare shingles a problem must have to be compared with it."""
    grams: Mapping[str, int]
    """n-gram -> position in ``places``, for n-grams that only one family has."""
    places: tuple[tuple[tuple[int, int], ...], ...]
    """For each n-gram the (item, first word) of its occurrences, ascending."""

    @classmethod
    def build(cls, problems: Sequence[Problem]) -> Index:
        """Returns the index of these problems, in their order."""
        whole = [tuple(words(problem.problem)) for problem in problems]
        bare = [tuple(bare_words(problem.problem)) for problem in problems]
        statements = [b if len(b) >= SHORTEST else w for b, w in zip(bare, whole, strict=True)]
        lexicon = {
            word: chr(code)
            for code, word in enumerate(sorted(set(chain(*whole))), ord(_UNKNOWN) + 1)
        }
        texts = [_encoded(statement, lexicon) for statement in statements]
        shingles = {
            shingle: having
            for shingle, places in _occurrences(texts, SHINGLE).items()
            if len(having := tuple(sorted({i for i, _ in places if len(texts[i]) >= SHORTEST})))
            <= RARE
        }
        rare = Counter(chain(*shingles.values()))
        least = tuple(SHARED_SHINGLES * rare[i] for i in range(len(problems)))
        items = tuple(
            Item(
                problem.set,
                problem.id,
                statement,
                text,
                Counter(
                    character
                    for word, character in zip(statement, text, strict=True)
                    if word.isdecimal()
                ),
            )
            for i, (problem, statement, text) in enumerate(
                zip(problems, statements, texts, strict=True)
            )
        )
        same: dict[str, list[int]] = defaultdict(list)
        for i, spellings in enumerate(zip(bare, whole, strict=True)):
            for text in {_encoded(spelling, lexicon) for spelling in spellings if spelling}:
                same[text].append(i)
        index = cls(
            items, (), lexicon, {text: tuple(same[text]) for text in same}, shingles, least, {}, ()
        )
        families = index._families()

        grams: dict[str, int] = {}
        places: list[tuple[tuple[int, int], ...]] = []
        stock: list[set[int]] = [set() for _ in items]
        for length in (SHORT_NGRAM, LONG_NGRAM):
            for gram, found in _occurrences(texts, length).items():
                # Any statement can show that an n-gram is boilerplate, but it is evidence only for
                # statements whose own n-gram length it has.
                fitting = tuple((i, start) for i, start in found if items[i].ngram == length)
                if len({families[i] for i, _ in found}) > 1:
                    for i, start in found:
                        stock[i].update(range(start, start + length))
                elif fitting:
                    grams[gram] = len(places)
                    places.append(fitting)
        return replace(
            index,
            items=tuple(map(_without, items, stock)),
            families=families,
            grams=grams,
            places=tuple(places),
        )

    def candidates(self, problem: str) -> tuple[Candidate, ...]:
        """Returns the items that ``problem`` may match, with the evidence, in the order of items;
        usually none.

        Pure. Time grows with the length of the text and the number of statements that it resembles.
        """
        text = _encoded(words(problem), self.lexicon)
        shared: dict[int, set[int]] = defaultdict(set)
        for gram in map(self.grams.get, chain(_runs(text, SHORT_NGRAM), _runs(text, LONG_NGRAM))):
            if gram is not None:
                for i, _ in self.places[gram]:
                    shared[i].add(gram)
        bare = bare_words(problem)
        spellings = [text, _encoded(bare, self.lexicon)] if bare else [text]
        exact = {i for spelling in spellings for i in self.texts.get(spelling, ())}
        aligned: dict[int, Spans] = {}
        for spelling in spellings:
            for i, spans in self._alike(spelling):
                more = len(positions(spans)) > len(positions(aligned.get(i, ())))
                if more and self._is_near(spelling, i, spans):
                    aligned[i] = spans
        aligned |= {i: ((0, len(self.items[i].text)),) for i in exact}
        return tuple(
            Candidate(i, i in exact, aligned.get(i, ()), tuple(sorted(shared.get(i, ()))))
            for i in sorted({*aligned, *shared})
        )

    def _alike(self, text: str) -> Iterator[tuple[int, Spans]]:
        """Yields (item, shared words) for statements that share rare shingles with ``text``; the
        shared words are those of its window that is most like the statement.
        """
        found = filter(None, map(self.shingles.get, set(_runs(text, SHINGLE))))
        common = Counter(chain.from_iterable(found))
        for i in [i for i, count in common.items() if count >= self.least[i]]:
            statement, window = self.items[i].text, text
            if len(text) > len(statement):
                best = fuzz.partial_ratio_alignment(statement, text)
                assert best is not None  # no score_cutoff
                window = text[best.dest_start : best.dest_end]
            blocks = Indel.opcodes(statement, window)
            yield (
                i,
                tuple((block.src_start, block.src_end) for block in blocks if block.tag == "equal"),
            )

    def _is_near(self, text: str, i: int, spans: Spans) -> bool:
        item, covered = self.items[i], positions(spans)
        missing = sum(max(0, n - text.count(number)) for number, n in item.numbers.items())
        return (
            item.likeness(covered) >= NEAR
            and missing <= (1 - NUMBERS) * item.numbers.total()
            and (item.in_words(covered) or item.in_full(covered))
        )

    def _families(self) -> tuple[int, ...]:
        alike = [
            {
                *self.texts.get(item.text, ()),
                *(
                    i
                    for i, spans in self._alike(item.text)
                    if len(positions(spans)) >= RELATED * len(self.items[i].text)
                ),
            }
            for item in self.items
        ]
        first = list(range(len(self.items)))
        for i, others in enumerate(alike):
            for other in others:
                # In both directions: a short statement that is all boilerplate resembles a window
                # of many others.
                if i in alike[other] and first[i] != first[other]:
                    old, new = max(first[i], first[other]), min(first[i], first[other])
                    first = [new if family == old else family for family in first]
        return tuple(first)


def _without(item: Item, stock: set[int]) -> Item:
    own = frozenset(range(len(item.text))) - stock
    real = frozenset(i for i in own if not is_symbol(item.words[i]))
    return replace(item, own=own, real=real)


def _encoded(statement: Iterable[str], lexicon: Mapping[str, str]) -> str:
    return "".join(map(lexicon.get, statement, repeat(_UNKNOWN)))


def _occurrences(texts: Sequence[str], length: int) -> dict[str, list[tuple[int, int]]]:
    """Returns each run of ``length`` words -> the (text, first word) of its occurrences."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, text in enumerate(texts):
        for start, run in enumerate(_runs(text, length)):
            found[run].append((i, start))
    return found


def _runs(text: str, length: int) -> list[str]:
    return [text[start : start + length] for start in range(len(text) - length + 1)]


def positions(spans: Spans) -> set[int]:
    """Returns the word positions covered by the spans."""
    return set(chain.from_iterable(range(start, end) for start, end in spans))
