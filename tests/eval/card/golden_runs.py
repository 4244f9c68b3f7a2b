"""Two small real runs and their model cards, which lie in golden/:

    make golden-cards      writes golden/*.md again (a few minutes)

Data, training, export and grading are real. The rollouts are written by hand, so that the figures
are the same on every machine.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from common.files import MANIFEST, read_json, write_json
from common.records import Problem, Rollout
from data_prep.benchmarks import sets
from data_prep.synth import anthropic_batches
from eval import evaluate
from eval.card import card
from eval.generation import rollout_files
from tests.conftest import warmstart
from tests.data_prep.synth.server import Mishaps, serving
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

GOLDEN = Path(__file__).with_name("golden")
KEY = "sk-not-a-key"
STEPS = 4
SMALL = [
    "model.init.hidden_size=64",
    "model.init.intermediate_size=128",
    "model.init.num_hidden_layers=2",
    "model.init.num_attention_heads=2",
    "model.init.num_key_value_heads=1",
    "data.test_rows=8",
    f"train.max_steps={STEPS}",
    "train.batch_size=16",
    "train.ranks=1",
    "data.spare_share=0",
]
FULL = [
    *SMALL,
    "data.arithmetic.problems=300",
    "eval.rollouts=4",
    "data.license=cc-by-4.0",
]
FULL += ["run.authors=[Ada Lovelace,Emmy Noether]"]
SYNTHETIC = [
    "data.source=synthetic",
    "data.columns={problem: problem, solution: solution, answer: answer, uuid: id}",
    "data.clean=gsm8k",
    "data.filters=synthetic",
    "data.answer_style=answer_is",
    "data.synth.seed_rows=8",
    "data.synth.examples=2",
    "data.synth.problems=120",
    "data.synth.per_request=1",
    "data.synth.max_usd=1",
]
GREEDY = ["eval.rollouts=1", "eval.temperature=0.0", "eval.top_p=1.0"]
Say = Callable[[Problem, int], str]

VOLATILE = (
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{40}(?:\+changes)?\b", "COMMIT"),
    (r"commit unknown|`unknown`", "COMMIT"),
    (r"(@(?:base|step_[0-9]+)-)[0-9a-f]+", r"\1HASH"),
    (r"year = \{[0-9]{4}\}", "year = {YEAR}"),
    (
        r"[0-9,]+ tokens/s, [0-9.,]+ rows/s, balance [0-9.]+ %",
        "RATE tokens/s, RATE rows/s, balance SHARE",
    ),
    (
        r"(?m)^(\| (?:[0-9,]+|all) \| [^|]*\| )[0-9]+\.[0-9]{4} \| [0-9]+\.[0-9]{4} "
        r"\| [0-9.]+ % \|$",
        r"\1LOSS | ENTROPY | SHARE |",
    ),
    (r"[0-9]+\.[0-9]{4} and (token accuracy )?[0-9.]+ %", r"ENTROPY and \1SHARE"),
    (r"(loss |, |; )[0-9]+\.[0-9]{4}(?= at| on)", r"\1LOSS"),
    (r"(?m)^(\| [^|]+ \| )[0-9.e-]+( (?:GPU|CPU process)-hours \|)", r"\1HOURS\2"),
    (r"(?m)^\| [a-z0-9-]+ \| `[0-9]+(?:\.[0-9a-z]+)+(?:\+[a-z0-9.]+)?` \|\n", ""),
)
"""(pattern, replacement) of what differs between two runs of one version: hashes, commits, dates,
speed, losses, cost and the versions of packages.
"""


def normalised(text: str) -> str:
    """Returns a card without what differs from run to run and from machine to machine."""
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return text


def full(folder: Path) -> str:
    """The card of a full-parameter run with boxed answers, on generated sums."""
    run = _trained("tiny", FULL, folder)
    _evaluated(run, BASE, lambda p, k: "7 7 7")
    _evaluated(run, ModelLabel(STEPS), lambda p, k: f"\\boxed{{{p.answer if k < 3 else 0}}}")
    return card.refresh(run)[0].read_text()


def qlora(folder: Path) -> str:
    """The card of a greedy QLoRA run with stated answers, on problems that a served model wrote."""
    seeds = folder / "seeds.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(8):
        problem, solution, answer = _problem(1_000 + i)
        values = {"id": f"seed-{i}", "problem": problem, "solution": solution, "answer": answer}
        lines.append(json.dumps(values) + "\n")
    seeds.write_text("".join(lines))
    with serving(Mishaps(), lambda name, _: _reply(int(name)), KEY) as address:
        os.environ |= {"ANTHROPIC_BASE_URL": address, anthropic_batches.KEY: KEY}
        run = _trained(
            "qlora_tiny", [*SMALL, *SYNTHETIC, *GREEDY, f"data.synth.seeds={seeds}"], folder
        )
    _evaluated(run, BASE, lambda p, k: "7 7 7")
    _evaluated(
        run,
        ModelLabel(STEPS),
        lambda p, k: f"The answer is {p.answer if p.id < 'c' else 0}.",
    )
    return card.refresh(run)[0].read_text()


def _trained(recipe: str, words: list[str], folder: Path) -> Run:
    words = [*words, f"run.root={folder}/runs", f"data.dir={folder}/data"]
    folder.mkdir(parents=True, exist_ok=True)
    warmstart("data", recipe, *words, folder=folder)
    warmstart("train", recipe, *words, folder=folder)
    warmstart("export", recipe, folder=folder)
    return Run(folder / "runs" / recipe)


def _evaluated(run: Run, label: ModelLabel, say: Say) -> None:
    config = configs.read(run.config)
    planned = evaluate.plan(config, run, label)
    planned.folder.mkdir(parents=True)
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None):
            for k in range(planned.settings.sampling.rollouts):
                finish = "length" if label == BASE else "stop"
                text = f"<think>\nI add.\n</think>\n\n{say(p, k)}"
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, 100, finish, "engine-0", 1.0)
                )
    evaluate.evaluate(config, run, label)
    # No engine ran, so the time of one is written by hand too.
    manifest = planned.folder / MANIFEST
    write_json(manifest, read_json(manifest) | {"devices": 1, "wall_seconds": 36.0})


def _problem(i: int) -> tuple[str, str, str]:
    """A problem of its own words, with its annotated solution and its answer."""
    rng = random.Random(i)
    first, second = rng.randint(100, 999), rng.randint(100, 999)
    things = [
        "".join(rng.choice(["ka", "lo", "mi", "tu", "ren"]) for _ in range(3)) for _ in "four"
    ]
    problem = (
        f"{things[0].title()} has {first} {things[1]} from {things[2]} and buys {second} more at "
        f"the {things[3]} market. How many are there in all?"
    )
    total = first + second
    step = f"{first} + {second} = <<{first}+{second}={total}>>{total}"
    return problem, f"Together that is {step} of this kind.", str(total)


def _reply(i: int) -> str:
    problem, solution, answer = _problem(i)
    return (
        f"<problem>{problem}</problem>\n<solution>{solution}</solution>\n<answer>{answer}</answer>"
    )


CARDS = {"full_boxed": full, "qlora_answer_is": qlora}


def main() -> None:
    """Writes the golden cards."""
    GOLDEN.mkdir(exist_ok=True)
    for name, make in CARDS.items():
        with TemporaryDirectory() as folder:
            (GOLDEN / f"{name}.md").write_text(normalised(make(Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
