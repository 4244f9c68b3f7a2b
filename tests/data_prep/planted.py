"""A source with a planted defect of every kind, records that only look defective, and leaks of
benchmarks.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.benchmarks import sets as suites
from data_prep.build import Settings
from data_prep.rows.map_shard import RowSettings
from data_prep.source.source import Source
from tests.data_prep.duplicates.contamination import respaced, retexed, reworded
from tests.data_prep.openr1 import NAMES, PLACES, THINGS, clean, record, thought, trace

CLEAN = 300
SETS = ("aime2025", "aime2026", "amc2023")
SETTINGS = Settings(
    source=Source("none"),
    rows=RowSettings(
        columns=None,
        clean=None,
        verifier="correctness_math_verify",
        trace_choice="first",
        question_types=("math-word-problem", "MCQ"),
        max_chars=6_000,
        max_length=1_500,
        min_think_tokens=12,
        seed=3,
    ),
    tokenizer="trained",
    model="",
    model_revision=None,
    benchmarks=Path("none"),
    decontaminate=(),
    train_rows=None,
    test_rows=20,
    max_bad_records=0,
)


def planted() -> Iterator[tuple[str, dict[str, Any]]]:
    """(the reason it must be dropped for, a record)."""
    rng = random.Random(0)
    long = thought(rng, 60)
    good, wrong = trace("7", long), trace("8", long)

    def problem(words: str) -> str:
        return f"Planted with {words}: {thought(rng, 15)}?"

    def one(
        reason: str, name: str, generations: list[str], answer: Any = "7", **more: Any
    ) -> tuple[str, dict]:
        return reason, record(f"bad {name}", problem(name), answer, generations, **more)

    misaligned = {"correctness_math_verify": [False, True]}
    yield one(
        "no trace whose own box is the answer",
        "flags of the other trace",
        [good, wrong],
        **misaligned,
    )
    yield one("no trace whose own box is the answer", "right flag, wrong box", [wrong])
    yield one("no verified trace", "no flags at all", [good], correctness_math_verify=None)
    yield one("no verified trace", "null flag", [good], correctness_math_verify=[None])
    yield one("no complete trace", "cut off", [good], is_reasoning_complete=[False])
    yield one("no complete trace", "ran into the limit", [good], finish_reasons=["length"])
    yield one("no answer", "null answer", [good], answer=None)
    yield one(
        "no checkable answer", "answer not found", [trace("notfound", long)], answer="notfound"
    )
    yield one("no checkable answer", "proof answer", [trace("proof", long)], answer="proof")
    yield one("question type", "proof question", [good], question_type="proof")
    yield one(
        "control token in the text",
        "end of turn",
        [good.replace("check", "<|im_end|> check", 1) + " <|im_end|>"],
    )
    yield one("not exactly one think block", "two think blocks", [f"<think>\na\n</think>\n{good}"])
    yield one("not exactly one think block", "text before the block", [f"Well. {good}"])
    yield one(
        "no trace whose own box is the answer",
        "box only in the thought",
        [trace("7", long + r" \boxed{7}", "7")],
    )
    yield one(
        "no trace whose own box is the answer", "unclosed box", [trace("7", long, r"\boxed{7")]
    )
    yield one("over 6000 characters", "long text", [trace("7", thought(rng, 1_200))])
    yield one("over 1500 tokens", "many tokens", [trace("7", thought(rng, 700))])
    yield one("under 12 tokens of thinking", "no thinking", [trace("7", "seven")])
    yield one("degenerate repetition", "loop", [trace("7", "wait, let me check again. " * 150)])
    yield one(
        "degenerate repetition", "late loop", [trace("7", thought(rng, 150) + " so 12" * 700)]
    )
    yield one("mixed languages", "Chinese", [trace("7", thought(rng, 400) + " 因此我们 hence")])
    yield "no problem", record("bad empty problem", " ", "7", [good])
    yield "same row twice", clean(5)
    yield "duplicate problem", clean(6) | {"uuid": "exact copy"}
    spaced = clean(7)
    yield (
        "duplicate problem",
        spaced | {"uuid": "spacing", "problem": spaced["problem"].upper().replace(" ", "  ")},
    )
    near = clean(8)
    yield (
        "duplicate problem",
        near
        | {"uuid": "near copy", "problem": near["problem"].replace("How many", "Well, how many")},
    )


def survivors() -> Iterator[dict[str, Any]]:
    """Records that look defective and are not."""
    rng = random.Random(1)
    nested = r"\frac{1}{\sqrt{2}}"
    yield record(
        "kept nested braces",
        f"Nested? {thought(rng, 15)}",
        nested,
        [trace(nested, thought(rng, 60))],
    )
    wrong, good = trace("8", thought(rng, 60)), trace("7", thought(rng, 60))
    flags = {"correctness_math_verify": [False, True]}
    yield record("kept second trace", f"Second? {thought(rng, 15)}", "7", [wrong, good], **flags)
    several = trace("7", thought(rng, 60)).replace("The answer", r"Not \boxed{3}. The answer")
    yield record("kept last box", f"Last? {thought(rng, 15)}", "7", [several])
    greek = trace("7", thought(rng, 60) + " α + β ≤ γ")
    yield record("kept Greek", f"Greek? {thought(rng, 15)}", "7", [greek], finish_reasons=None)
    template = clean(9)
    yield template | {
        "uuid": "kept template",
        "problem": template["problem"].replace("packs ", "packs 1"),
        "answer": "12345",
        "generations": [trace("12345", thought(rng, 60))],
    }


def contaminated(folder: Path, sets: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Benchmark problems as they are, reworded, re-spaced and re-TeXed.

    Their source is amc_aime, which gets no free pass.
    """
    for i, p in enumerate(suites.load(folder, list(sets), 8)):
        rng = random.Random(p.id)
        forms = {
            "as it is": p.problem,
            "spaced": respaced(p.problem, rng),
            "TeX": retexed(p.problem),
        }
        forms["reworded"] = reworded(p.problem, rng, [*NAMES, *THINGS, *PLACES])
        form, text = list(forms.items())[i % 4]
        answer = [trace(p.answer, thought(rng, 60))]
        yield record(f"leak {p.id} {form}", text, p.answer, answer, source="amc_aime")


def write(folder: Path, records: list[dict[str, Any]], files: int) -> str:
    """Deals the records to JSONL files; returns their glob."""
    folder.mkdir(parents=True)
    for k in range(files):
        text = "".join(json.dumps(r) + "\n" for r in records[k::files])
        (folder / f"part-{k}.jsonl").write_text(text)
    return f"{folder}/*.jsonl"


def rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "rows.parquet").to_pylist()
