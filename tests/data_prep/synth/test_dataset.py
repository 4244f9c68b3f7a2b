"""From seeds to a dataset: generated, filtered in the published order, each drop counted, and never
generated twice.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.records import Problem
from data_prep.benchmarks import sets as suites
from data_prep.build import Settings, Workers, build
from data_prep.duplicates import decontaminate, tfidf
from data_prep.duplicates.benchmark_index import Index
from data_prep.rows.map_shard import RowSettings
from data_prep.source.source import Source
from data_prep.synth import anthropic_batches, prompts
from data_prep.synth.anthropic_batches import Batches
from data_prep.synth.budget import Budget
from data_prep.synth.generation import COLUMNS, Generation
from data_prep.synth.local_model import Local
from data_prep.tokenizer import token_files
from tests.data_prep.synth.server import Mishaps, serving

KEY = "sk-not-a-key"
ROWS = RowSettings(
    columns=COLUMNS,
    clean="gsm8k",
    verifier="",
    trace_choice="first",
    question_types=None,
    max_chars=8_000,
    max_length=1_024,
    min_think_tokens=1,
    seed=5,
    answer_style="answer_is",
    filters="synthetic",
)
GENERATION = Generation(
    folder=Path("none"),
    seeds=Path("none"),
    seed_rows=200,
    examples=4,
    problems=60,
    per_request=1,
    backend="anthropic",
    model="claude-haiku-4-5",
    temperature=1.0,
    max_tokens=500,
    seed=3,
)


@pytest.fixture(scope="module")
def real(benchmarks: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (benchmarks / "gsm8k_train.jsonl").open()]


def shown(problem: str, solution: str, answer: str) -> str:
    return (
        f"<problem>{problem}</problem>\n<solution>{solution}</solution>\n<answer>{answer}</answer>"
    )


def sum_of(i: int, name: str = "", result: int | None = None) -> tuple[str, str, str]:
    """A problem of its own words."""
    rng = random.Random(i)
    a, b = rng.randint(100, 999), rng.randint(100, 999)
    things = [
        "".join(rng.choice(["ka", "lo", "mi", "tu", "ren", "sab", "dor"]) for _ in range(3))
        for _ in range(6)
    ]
    problem = (
        f"{name or things[0]} has {a} {things[1]} "
        f"from {things[2]} and {b} {things[3]}. How many {things[4]}?"
    )
    total = a + b if result is None else result
    return (
        problem,
        f"There are {a}+{b} = <<{a}+{b}={total}>>{total} of the {things[5]} kind.",
        str(total),
    )


def test_published_order_and_every_verdict(
    real: list[dict[str, Any]], benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = replace(
        GENERATION, folder=tmp_path / "generated", seeds=benchmarks / "gsm8k_train.jsonl"
    )
    seed = generation.chosen[0]
    leak = json.loads((benchmarks / "gsm8k_test.jsonl").read_text().splitlines()[2])
    leaked = re.sub(r"\bJosh\b", "Priyanka", leak["problem"])
    assert leaked != leak["problem"]
    solved = leak["solution"].split("\n####")[0]
    near, far = sum_of(2)[0].replace(" has ", " owns "), sum_of(3)[0]
    planted = {
        "structure: no annotation": [(far, "It is obvious that it is 7.", "7")],
        "structure: a part is missing": [("", "", "")],
        "answer range: over 225000": [
            (
                "A city of 400000 doubles. How many people live there then in all?",
                "It has 400000*2 = <<400000*2=800000>>800000 of them.",
                "800000",
            )
        ],
        "solution quality: numbers without words": [(far, "<<3+4=7>>7", "7")],
        "AI detection: boilerplate": [(far, "Certainly! It is 3+4 = <<3+4=7>>7 in all.", "7")],
        "math verification: wrong arithmetic": [sum_of(4, result=5)],
        "duplicate problem": [sum_of(5)],
        "near-duplicate problem": [(near, *sum_of(2)[1:])],
        "like a seed": [(seed.problem, seed.solution, seed.answer)],
        "in a benchmark": [(leaked, solved, leak["answer"])],
    }
    bad = [item for items in planted.values() for item in items]
    texts = [shown(*item) for item in [*(sum_of(i) for i in range(50)), *bad]]
    texts[0] += "\n" + texts.pop()  # a reply with two problems
    texts[11] = "Sorry, here is none."
    with serving(Mishaps(expired=0.2), lambda name, _: texts[int(name)], KEY) as address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        monkeypatch.setenv(anthropic_batches.KEY, KEY)
        backend = Batches("claude-haiku-4-5", 500, Budget(1.0, 5.0, 5.0), poll=0.01, settle=0.2)
        settings = Settings(
            source=Source(
                "synthetic", generation=replace(generation, problems=59), backend=backend
            ),
            rows=ROWS,
            tokenizer="qwen3",
            model="",
            model_revision=None,
            benchmarks=benchmarks,
            decontaminate=("gsm8k_test",),
            train_rows=None,
            test_rows=5,
            max_bad_records=0,
        )
        assert build(tmp_path / "data", settings, Workers(processes=1))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    dropped = {
        k.removeprefix("dropped: "): v
        for k, v in manifest["funnel"].items()
        if k.startswith("dropped") and v
    }
    expected = {reason: len(items) for reason, items in planted.items()}
    expected["structure: a part is missing"] += 1
    assert dropped == expected
    order = [step.removeprefix("dropped: ").partition(":")[0] for step in manifest["funnel"]]
    stages = [
        "structure",
        "answer range",
        "solution quality",
        "AI detection",
        "math verification",
        "duplicate problem",
        "near-duplicate problem",
        "like a seed",
        "in a benchmark",
    ]
    assert [step for step in dict.fromkeys(order) if step in stages] == stages
    assert (
        manifest["rows"] == {"train": 44, "test": 5} and manifest["funnel"]["source records"] == 60
    )
    report = (tmp_path / "data" / "report.md").read_text()
    assert all(f"## Dropped: {reason} ({count})" in report for reason, count in expected.items())

    import pyarrow.parquet as pq

    for row in pq.read_table(tmp_path / "data" / "rows.parquet").to_pylist():
        assert re.fullmatch(r"<think>\n[^<>]+\n</think>\nThe answer is (\d+)\.", row["solution"])
        assert row["source"] == "synthetic/claude-haiku-4-5"
    first = token_files.get(token_files.read(tmp_path / "data" / "tokens" / "train.arrow"), 0)
    assert (first.input_ids[first.prompt_len], first.input_ids[-1]) == (151667, 151645)

    # The server is gone: a second build asks nobody, and says what differs.
    assert not build(tmp_path / "data", settings)
    other = replace(settings.source, generation=replace(generation, problems=59, seed=4))
    with pytest.raises(UserError, match=r"generated with other settings:\n  seed: 3 -> 4\n"):
        build(tmp_path / "data", replace(settings, source=other))
    account = json.loads((tmp_path / "generated" / "manifest.json").read_text())["account"]
    assert account["results"]["answered"] == 59 and account["results"]["expired"] > 5


def test_test_set_problems_with_changed_names_are_found(
    real: list[dict[str, Any]], benchmarks: Path
) -> None:
    """Renamed people and places; and of real training problems hardly one is taken for a test
    problem.
    """
    problems = suites.load(benchmarks, ["gsm8k_test"], None)
    index = Index.build(problems)
    lower = {word for row in real for word in re.findall(r"\b[a-z]+\b", row["problem"])}
    rng, found = random.Random(0), 0
    names = (
        "Amara",
        "Boris",
        "Chen",
        "Dalia",
        "Emeka",
        "Fatima",
        "Goran",
        "Hana",
        "Imani",
        "Jorge",
        "Kiri",
        "Leila",
    )
    for problem in (sample := rng.sample(problems, 200)):
        new = {
            old: rng.choice(names)
            for old in set(re.findall(r"\b[A-Z][a-z]+\b", problem.problem))
            if old.lower() not in lower
        }
        renamed = re.sub(
            r"\b[A-Z][a-z]+\b", lambda m, new=new: new.get(m[0], m[0]), problem.problem
        )
        row = {"row": index.candidates(renamed)}
        found += problem.id in {f.id for f in decontaminate.judge(row, {}, index).values()}
    assert found == len(sample)
    rows = {row["id"]: index.candidates(row["problem"]) for row in real[:1_000]}
    assert len(decontaminate.judge(rows, {}, index)) <= 3


def test_prompts_show_seeds_and_ask_for_the_rest(benchmarks: Path) -> None:
    seeds = prompts.choose(benchmarks / "gsm8k_train.jsonl", 200, 1)
    assert len({seed.id for seed in seeds}) == 200
    asked = prompts.requests(seeds, 23, 5, 4, 1)
    assert [r.id for r in asked] == [f"{i:06d}" for i in range(5)] and "Write 3 new" in asked[
        -1
    ].prompt
    for request in asked:
        examples = prompts.items(request.prompt.partition("\n\n")[2].partition("\n\nWrite")[0])
        assert len(examples) == 4
        assert all(
            (e.problem, e.solution, e.answer) in {(s.problem, s.solution, s.answer) for s in seeds}
            for e in examples
        )
    assert asked == prompts.requests(seeds, 23, 5, 4, 1) != prompts.requests(seeds, 23, 5, 4, 2)
    with pytest.raises(
        UserError,
        match=r"6,938 problems can serve as examples, but data\.synth\.seed_rows is 7,000",
    ):
        prompts.choose(benchmarks / "gsm8k_train.jsonl", 7_000, 1)


def test_near_duplicates_are_those_of_all_cosines(real: list[dict[str, Any]]) -> None:
    """Against the whole matrix, with copies of real problems in which ever more words are changed:
    what is alike at 0.84 stays, at 0.86 goes.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    from data_prep.duplicates.normalise_text import words

    rng, texts = random.Random(0), [row["problem"] for row in real[:1_200]]
    for text in texts[:300]:
        spelled = text.split()
        for i in rng.sample(range(len(spelled)), max(1, len(spelled) * rng.randint(4, 22) // 100)):
            spelled[i] = rng.choice(["zebra", "quartz", "violin", "harbour"])
        texts.append(" ".join(spelled))
    cosines = cosine_similarity(TfidfVectorizer(analyzer=words).fit_transform(texts))
    kept: list[int] = []
    expected = []
    for i in range(len(texts)):
        alike = [j for j in kept if cosines[i, j] >= 0.85]
        expected.append(alike[0] if alike else i)
        if not alike:
            kept.append(i)
    assert tfidf.nearest(texts) == expected
    closest = [max(cosines[i, j] for j in range(i)) for i in range(1_200, 1_500)]
    just_below = [i for i, c in enumerate(closest, 1_200) if 0.835 <= c < 0.85]
    just_above = [i for i, c in enumerate(closest, 1_200) if 0.85 <= c < 0.865]
    assert len(just_below) >= 5 and all(expected[i] == i for i in just_below)
    assert len(just_above) >= 5 and all(expected[i] != i for i in just_above)
    assert tfidf.nearest(["", "!", "?"]) == [0, 1, 2] and tfidf.nearest(["a b c", "c b a"]) == [
        0,
        0,
    ]


def test_a_local_model_answers_through_the_evaluators_files(
    benchmarks: Path, tmp_path: Path
) -> None:
    """The prompts lie in a benchmark's form, and what is read back is the reply without its
    thoughts.
    """
    generation = replace(
        GENERATION,
        folder=tmp_path,
        seeds=benchmarks / "gsm8k_train.jsonl",
        backend="local",
        problems=2,
    )

    def generate(problems: Any, folder: Path) -> None:
        assert suites.read_problems(folder / "prompts.jsonl") == list(problems)
        with (folder / "rollouts.jsonl").open("w") as file:
            for problem in problems:
                assert isinstance(problem, Problem) and problem.set == "synth"
                text = (
                    f"<think>\n<problem>no</problem>\n</think>\n\n{shown(*sum_of(int(problem.id)))}"
                )
                rollout = {
                    "key": ["synth", problem.id, 0],
                    "seed": 1,
                    "text": text,
                    "tokens": 9,
                    "finish_reason": "stop",
                    "engine": "e",
                    "seconds": 1.0,
                }
                file.write(json.dumps(rollout) + "\n")

    records = [
        json.loads(line) for line in generation.complete(Local(generate)).read_text().splitlines()
    ]
    assert [(r["problem"], r["solution"], r["answer"]) for r in records] == [sum_of(0), sum_of(1)]
