"""What is the statement of a problem: the form of its answer, headings and options are not."""

import time

import pytest

from data_prep.duplicates.normalise_text import words
from data_prep.duplicates.statement import bare_words

PROBABILITY = "An urn holds $4$ red and $9$ blue pebbles. The probability that two drawn ones match"
AREA = "A goat grazes on a meadow with sides $9$, $10$ and $17$. What is the area of the meadow?"


@pytest.mark.parametrize(
    ("statement", "form"),
    [
        (PROBABILITY, r" is $\frac{m}{n}$, where $m$ and $n$ are coprime integers. Find $m+n$."),
        (PROBABILITY, r" equals $\tfrac pq$ where $p$ and $q$ are relatively prime. Compute $pq$."),
        (PROBABILITY, r" can be written as $\frac ab$ in lowest terms. What is $a^2+b^2$?"),
        (PROBABILITY, r" can be expressed in the form $2^u \cdot v$ for an odd $v$. Find $u + v$."),
        (PROBABILITY, r" is $\frac{m}{n}$, where $\gcd(m,n)=1$, find the value of $100m + n$."),
        (PROBABILITY, r" is $\frac mn$ with relatively prime $m$ and $n$; what is $m-n$?"),
        (
            PROBABILITY,
            r" may be written as $\frac{r-\sqrt s}{t}$, where $r$, $s$ and $t$ are positive "
            r"integers and $s$ is not divisible by the square of any prime. Find the "
            "remainder when $r+s+t$ is divided by $1000$.",
        ),
        (AREA, " Express your answer as a common fraction."),
        (AREA, " (Give your answer to two decimal places.)"),
        (AREA, r" Please write the final answer in the form $k\sqrt{l}$. What is $k+l$?"),
        (AREA, " Round to the nearest integer."),
        (AREA, " Round your answer to the nearest tenth of a square meter."),
        (AREA, " Answer with a single integer."),
        (AREA, r" If the answer is in the form $\frac{m}{n}$ in lowest terms, find $m+n$."),
        (
            AREA,
            r" The answer can be written as $m\sqrt n$ for integers $m$ and $n$. Find $m \cdot n$.",
        ),
        (AREA, r" Let the answer be $\frac{c}{d}$, where $c$ and $d$ are coprime. Find $c+d$."),
        (AREA, r" Your answer should be an integer between $0$ and $999$."),
        (AREA, " Enter your answer without units."),
        (AREA, r" Put your final answer within \boxed{}."),
    ],
)
def test_the_form_of_the_answer_is_left_out(statement: str, form: str) -> None:
    assert bare_words(statement + form) == words(statement)
    assert bare_words(form) != words(statement)


@pytest.mark.parametrize(
    "tail", [" to the nearest tenth", ", in simplest form", " as a mixed number"]
)
def test_a_tail_is_left_out(tail: str) -> None:
    assert bare_words(AREA.replace("?", f"{tail}?")) == words(AREA)


@pytest.mark.parametrize(
    "heading",
    [
        "Problem 4.",
        "PROBLEM 12\n",
        "Example 3: ",
        "Question: ",
        "7. ",
        "18) ",
        "2. (10 points) ",
        "[6 pts] ",
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        r" (A) $8$ (B) $12$ (C) $36$ (D) $40$",
        "\n(A) one\n(B) two\n(C) three",
        r" $\textbf{(A) } 8 \qquad \textbf{(B) } 9 \qquad \textbf{(C) } 30$",
        "\nA. 7\nB. 36\nC. 49",
    ],
)
def test_headings_and_options_are_left_out(heading: str, options: str) -> None:
    assert bare_words(heading + AREA) == bare_words(AREA + options) == words(AREA)
    assert bare_words(heading + AREA + options) == words(AREA)


@pytest.mark.parametrize(
    "problem",
    [
        AREA,
        "How many numbers below $80$ can be written as the sum of two squares?",
        "Find all integers $p$ and $q$ where $p$ and $q$ are relatively prime and $p+q=12$.",
        "Let $f$ be linear for all positive integers $n$ with $f(n) = 3n$. What is $f(2023)$?",
        "If $x = y$ where $x$ and $y$ are integers, how many integers lie between them?",
        "A recipe rounds all weights to the nearest ounce, and then doubles them. What is $5.4$?",
        "Round $45.67$ to the nearest tenth and then add one.",
        "Points (A) and (B) lie on a circle.",
        "Ann answers 8 questions. Her answers are right 6 times. How many are wrong?",
        "3.5 pounds of flour cost $7. How much is one pound?",
        "12 points lie on a circle. How many chords do they define?",
    ],
)
def test_what_belongs_to_the_statement_is_kept(problem: str) -> None:
    assert bare_words(problem) in ([], words(problem))


def test_a_text_of_nothing_else_has_no_statement() -> None:
    assert bare_words("Express your answer as a fraction.") == bare_words("Problem 3") == []


@pytest.mark.parametrize(
    "piece",
    [
        "where m ",
        "can be written as ",
        "integer. find m. ",
        " ",
        ", find ",
        "then ",
        ", then",
        "the final ",
        ".$",
        "in lowest terms ",
        "(A) (B) ",
        "\n",
        "is m/n where ",
        "to the nearest ",
        "as a common ",
        "(",
    ],
)
def test_time_is_linear_in_hostile_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = "answer integer " + piece * (length // len(piece)) + "C)"
        begin = time.process_time()
        bare_words(text)
        return time.process_time() - begin

    assert (
        min(seconds(200_000) for _ in range(2)) < 10 * min(seconds(50_000) for _ in range(3)) + 0.2
    )
