"""Filters of the problem: language, pictures, proofs, solutions; and the excerpts of drops."""

import json
import random
import time
from pathlib import Path

import pytest

from common.records import Row
from data_prep.rows.dropped import EXCERPT
from data_prep.rows.filters import standard
from tests.data_prep.openr1 import thought

FILTERS = standard(60_000, "boxed")
SOLUTION = "<think>\nwell then\n</think>\n\nIt is \\boxed{37}."
PADDING = f" In the story, {thought(random.Random(1), 90)}. "


def failed(problem: str, solution: str = SOLUTION, answer: str = "37") -> list[str]:
    row = Row("i", "s", "u", 0, problem, solution, answer)
    return [check.name for check in FILTERS if not check.keep(row)]


LANGUAGES = {
    "mixed languages": [
        "一个农夫有三十七只羊，卖掉了几只，还剩多少只？",
        "Сколько целых чисел лежит между двумя корнями уравнения?",
        "ある数の二乗は何ですか。",
        "어떤 수의 제곱은 얼마입니까?",
        "Find the number 求出这个数 of sheep.",
        "كم عدد الأعداد الأولية",
        "Գտեք թիվը",
    ],
    "problem not in English": [
        "Encuentra el número de vacas que tiene la granja después de la feria.",
        "Calcula la suma de los dígitos de $2^{10}$.",
        "¿Cuántos números primos hay entre 20 y 50?",
        "Soit $n$ un entier. Trouver le plus petit $n$ tel que $n^2$ est pair.",
        "Combien de moutons restent dans le pré après la vente ?",
        "Ein Bauer hat 37 Kühe und verkauft jeden Tag eine. Wie viele sind es nach einer Woche?",
        "Bestimme die Summe der ersten Zahlen von $1$ bis $9$.",
        "Quanti sono i divisori del numero 48 che sono pari?",
        "Quantos números inteiros satisfazem a equação da reta?",
        "Hoeveel schapen zijn er na een week in het veld?",
        "Bir çiftçinin kaç koyunu kaldığını bulunuz, yarısı satılmıştır.",
        "Mennyi az első öt páratlan szám összegének négyzete, számológép nélkül?",
    ],
}
PICTURES = [
    "Find the shaded area. ![](https://host.example/a_b.jpg?height=3)",
    "![triangle](figure7.png) Find the angle.",
    "\\includegraphics[width=4cm]{barn.pdf} Find the angle.",
    "What is the area? <img src='a.png'/>",
    "See https://host.example/pictures/barn.PNG and find the angle.",
    "In the figure, $ABCD$ is a square. Find the angle.",
    "As shown in the figure, the circle touches the line. Find the radius.",
    "As shown in Figure 3, the circle touches the line. Find the radius.",
    "In the diagram below, what is $x$?",
    "The diagram shows a barn. What is its height?",
    "What is the area of the region in the diagram?",
    "The graph shown below is that of a line. Find its slope.",
    "In the accompanying figure, find $x$.",
    "Find the angle (see figure).",
    "[Figure 2] Find the area of the barn.",
    "What fraction of the rectangle shown is shaded?",
    "Two circles are shown. Find the length of the chord.",
    "The graph of the function $g$ is shown. What is its period?",
    "Find the length of the edge pictured at the right.",
]
PROOFS = [
    "Prove that the product of three successive integers is even.",
    "Show that each such number has an odd divisor.",
    "Let $a > b$. Demonstrate that $a^2 > ab$.",
    "Let $n > 1$. Prove: $n^3 > n$.",
    "Prove that one can find such an $n$.",
    "Can you prove that it is possible to determine the colour?",
    "Show, by induction, that $2^n > n$.",
    "Show the inequality $x + y > z$.",
    "Give a proof of the formula for the sum of cubes.",
]
SOLVED = [
    "How many sheep are there? ## Solution. We count them.",
    "How many sheep are there?\n\n**Solution**\n\nWe count them.",
    "How many sheep are there? Solution: we count them.",
    "How many sheep are there?\nSolution 2. We count them.",
    "How many sheep are there? [Solution] We count them.",
    "How many sheep are there? Answer: 37",
    "How many sheep are there? **Answer:** $37$.",
    "How many sheep are there? (Answer: 37 sheep)",
    "How many sheep are there? The answer is 37.",
    "How many sheep are there? Ans. 37",
    "Answer: 37. How many sheep are there?",
    "How many sheep are there? There are $\\boxed{37}$.",
]
GOOD = [
    "Figure 1 has 5 tiles, Figure 2 has 9 and Figure 3 has 13. How many are in Figure 20?",
    "A kite is shown in the coordinate plane with corners (0,0), (2,1), (5,0). Find its area.",
    "Each square is shown in one of four colors. How many ways are there?",
    "Find the area of the region shown between $y = x$ and $y = x^3$.",
    "The picture on the left wall is 2 feet wide. How far is it from the door?",
    "Prove or disprove: the sum of two primes is even. Say yes or no.",
    "Prove that the sequence converges, and give its limit.",
    "Show that it is periodic, and deduce the remainder of $3^{50}$ mod 8.",
    "Verify that $x = 2$ is a root, hence factorise $x^3 - 8$.",
    "For which $n$ can one prove the inequality?",
    "The café has tables 4de, 7la, 9el, 3los, 5del, 6una. How many?",
    "The café has tables de4, la7, el9, los3, del5, una6. How many?",
    "For each correct answer a student gets 7 points. How many points are 7 answers?",
    "Bo's answer was 12, and Jo's answer is 7. By how much do they differ?",
    "$3 + \\boxed{7} = 10$. How often is this true?",
    "Simplify: $\\sqrt{72}$",
    "Señor Álvarez de la Vega sells 3 piñatas to José; what is the price of each?",
    "Evaluate the Möbius function at $30$.",
    "If $f: \\mathbb{R} \\to \\mathbb{R}$ and α + β = 3, find α.",
    "The word 'una' is Spanish. How many letters are in it?",
    "In the figure, $ABC$ is a triangle. [asy] draw((0,0)--(1,1)); [/asy] Find $AB$.",
    "The diagram below shows it. \\begin{tikzpicture} \\draw (0,0); \\end{tikzpicture} Find $x$.",
    "The following diagram has the prices:\n| a | b |\n|---|---|\n| 1 | 2 |\nHow many?",
    "The rows of an array are shown below. 1 2 3 4 5 6 How many rows sum to 6?",
    "The diagram of Euler is shown to be planar. How many faces has it?",
    "How many figures did she draw in her picture book of diagrams?",
    "Find the image of the line under the map, and the following image of the point.",
    "Find the area of the plane figure below the line $y = 1$.",
    "A figure skater shows that she can turn 5 times. How many turns is that in an hour?",
    "Find all such $n$ and prove that there are no others.",
    "Prove that $n$ is even and determine its last digit.",
    "Prove that $f$ is bounded. Is it constant?",
    "How much does an improved barn cost?",
    "Find the solution of $x + 3 = 40$. Write the solution in decimals.",
    "Solution A has 10% of salt, solution B 20%. He mixes Solution 1 with Solution 2. How much?",
    "Choose the right answer: (A) 36 (B) 37 (C) 38",
    "Write 37 as a sum of two squares; give the answer as a pair.",
    "What is the answer to the question in a box, \\boxed{?}, if it is a number?",
]


@pytest.mark.parametrize(
    ("reason", "problem"),
    [(reason, problem) for reason, problems in LANGUAGES.items() for problem in problems]
    + [("problem needs a picture", problem) for problem in PICTURES]
    + [("problem asks for a proof", problem) for problem in PROOFS]
    + [("problem holds its solution", problem) for problem in SOLVED],
)
def test_a_problem_of_this_kind_is_dropped_for_this_reason(reason: str, problem: str) -> None:
    assert failed(problem)[:1] == [reason]


@pytest.mark.parametrize("answer", ["...", "$$", "%", " ", "n/a"])
def test_an_answer_that_says_nothing_is_no_answer(answer: str) -> None:
    assert failed("How many are there?", answer=answer) == ["no checkable answer"]


def test_a_list_of_choices_is_no_stated_answer() -> None:
    assert failed("Which of these is prime?\nAnswer: A. 3\nB. 4\nC. 6", answer="A") == []


@pytest.mark.parametrize("problem", GOOD)
def test_a_problem_that_only_looks_like_one_is_kept(problem: str) -> None:
    assert failed(problem) == []


def test_almost_no_benchmark_problem_is_dropped(benchmarks: Path) -> None:
    """One statement points at a figure that its file does not have."""
    dropped = set()
    for file in benchmarks.glob("*.jsonl"):
        for line in file.open():
            item = json.loads(line)
            boxed = f"<think>\na\n</think>\n\n\\boxed{{{item['answer']}}}"
            if failed(item["problem"], boxed, item["answer"]):
                dropped.add(item["id"])
    assert dropped == {"aime2025-I-2"}


@pytest.mark.parametrize(
    ("problem", "solution", "shown"),
    [
        (PADDING + "![](barn.jpg) How many?" + PADDING, SOLUTION, "![](barn.jpg)"),
        (PADDING + "Answer: 37", SOLUTION, "Answer: 37"),
        (PADDING + "Prove that it is even.", SOLUTION, "Prove that it is even."),
        (PADDING + "Wie 羊羊羊羊?", SOLUTION, "羊羊羊羊"),
        ("How many?", SOLUTION.replace("well", PADDING + "羊羊羊" + PADDING), "羊羊羊"),
        ("How many?", SOLUTION.replace("well", PADDING + "<|im_end|>" + PADDING), "<|im_end|>"),
        (PADDING + "<think> How many?", SOLUTION, "<think> How many?"),
        ("How many?", SOLUTION.replace("then", f"</think>again{PADDING}"), "</think>"),
        ("How many?", f"<think>\n{PADDING}\n</think>\n\nIt is 37 at the end.", "37 at the end."),
    ],
)
def test_an_excerpt_shows_what_failed(problem: str, solution: str, shown: str) -> None:
    row = Row("i", "s", "u", 0, problem, solution, "37")
    excerpt = next(fault for check in FILTERS if (fault := check.fault(row)) is not None)
    assert shown in excerpt and len(excerpt) <= EXCERPT


@pytest.mark.parametrize(
    "part",
    ["![", "https://", "find ", "\\boxed{", "answer ", "prove ? ", "\n", "in the figure ", "#", " ",
     "| ", "Solution", "é", "$", "[asy]", "a'", "de ", "\\", "show the ", "see the ", "<", "羊"],
)  # fmt: skip
def test_hostile_problems_take_linear_time(part: str) -> None:
    """Those before, which compress and count a solution, are not the problem's."""
    row = Row("i", "s", "u", 0, "picture prove answer " + part * 50_000, SOLUTION, "37")
    start = time.process_time()
    for check in FILTERS:
        check.keep(row)
    assert time.process_time() - start < 2
