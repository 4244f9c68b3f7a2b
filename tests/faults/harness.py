"""Runs `warmstart train` as a user does, injured or not, and compares what two runs did, bit for
bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors.numpy import load_file

from common.files import damaged, read_json, sha256_file
from tests.conftest import ROOT, environment, lines
from trainer.run.folder import SCALARS, Attempt, Run
from trainer.run.step_metrics import of_attempt

EPOCH, SAVE_EVERY, VALIDATE_EVERY = 12, 4, 6
TOTAL = 2 * EPOCH
RECIPE = [
    "data.arithmetic.problems=126",
    "data.spare_share=0",
    "data.test_rows=24",
    "train.batch_size=8",
    "train.max_tokens_per_gpu=256",
    f"train.save_every={SAVE_EVERY}",
    "train.keep_last=99",
    f"train.validate_every={VALIDATE_EVERY}",
    "model.init.attention_dropout=0.1",
]
"""Two epochs of 12 steps, the last of them smaller; dropout, so that every loss depends on the
generators.
"""
EXACT = (
    *("total", "epoch", "loss", "entropy", "token_accuracy", "grad_norm", "lr", "tokens"),
    *("balance", "fill", "skipped"),
)
"""The step metrics that are no time, speed or memory."""
KILLED = -9
LONGEST = 600
"""Seconds that an attempt may take at most."""


@dataclass(frozen=True)
class Trial:
    """A run of a recipe in a folder of its own, beside its dataset; ``root`` is where the run
    itself is.
    """

    folder: Path
    root: str = "runs"
    recipe: str = "tiny"

    @property
    def run(self) -> Run:
        return Run(self.folder / self.root / self.recipe)

    def command(self, verb: str, *overrides: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "warmstart",
            verb,
            self.recipe,
            *RECIPE,
            f"run.root={self.root}",
            *overrides,
        ]

    def build(self) -> None:
        """Makes the dataset."""
        subprocess.run(
            self.command("data"), cwd=self.folder, env=environment(), check=True, timeout=LONGEST
        )

    def attempt(
        self, code: int, injury: str | None = None, *overrides: str, **arguments: Any
    ) -> str:
        """Runs the command, which must end with ``code`` and leave no rank; returns what it
        printed.
        """
        variables = environment() | {
            "PYTHONPATH": f"{ROOT / 'tests' / 'faults' / 'hook'}{os.pathsep}{ROOT}"
        }
        if injury is not None:
            variables["INJURY"] = json.dumps([injury, arguments])
        done = subprocess.run(
            self.command("train", *overrides),
            cwd=self.folder,
            env=variables,
            timeout=LONGEST,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"{injury}: exit {done.returncode}\n{done.stdout}"
        _, alive = psutil.wait_procs(self.ranks(), timeout=10)
        assert alive == [], f"{injury}: ranks left behind"
        return done.stdout

    def ranks(self) -> list[psutil.Process]:
        """The run's ranks that are alive."""
        loops = (
            p
            for p in psutil.process_iter(["cmdline", "cwd"])
            if "trainer.loop.loop" in (p.info["cmdline"] or [])
        )
        return [p for p in loops if p.info["cwd"] == str(self.folder)]

    @property
    def starts(self) -> list[int]:
        """The step that each attempt went on from."""
        return [read_json(attempt.provenance)["first_step"] for attempt in self.run.attempts]

    @property
    def outcomes(self) -> list[str | None]:
        """How each attempt ended; None when it could not say."""
        paths = [attempt.outcome for attempt in self.run.attempts]
        return [read_json(path)["status"] if path.exists() else None for path in paths]

    def log(self, attempt: int) -> str:
        return self.run.attempts[attempt - 1].log.read_text(encoding="utf-8")


def differences(reference: Run, run: Run) -> list[str]:
    """Returns what a finished ``run`` did otherwise than ``reference``, which trained in
    one attempt.

    Every step of every attempt counts, also those that were lost and run again, and every
    checkpoint that both have; so a trial of many injuries tests each of them.
    """
    found = []
    (only,) = reference.attempts
    steps, rows = of_attempt(only), _rows(only)
    for attempt in run.attempts:
        for step, values in of_attempt(attempt).items():
            found += [
                _unlike(f"{attempt.number}: step {step}: {k}", steps[step][k], values[k])
                for k in EXACT
            ]
        for (step, rank), ids in _rows(attempt).items():
            found.append(
                _unlike(
                    f"{attempt.number}: step {step}: rows of rank {rank}", rows[step, rank], ids
                )
            )
    losses, wanted = (
        {s["step"]: s["val_loss"] for s in lines(r.metrics)} for r in (run, reference)
    )
    found.append(_unlike("validation losses", wanted, losses))
    found.append(_unlike("last checkpoint", reference.checkpoints[-1], run.checkpoints[-1]))
    for step in sorted({*run.checkpoints} & {*reference.checkpoints}):
        folders = reference.checkpoint(step), run.checkpoint(step)
        assert damaged(folders[1]) == []
        found += [
            _unlike(f"{folders[1].name}: {name}", *values)
            for name, values in _contents(*folders).items()
        ]
    return [text for text in found if text]


def _unlike(what: str, wanted: Any, found: Any) -> str:
    """A sentence when the two are not the same, else nothing."""
    return "" if wanted == found else f"{what}: {wanted} -> {found}"


def _rows(attempt: Attempt) -> dict[tuple[int, int], list[str]]:
    """(step, rank) -> ids of the rows that it read, of the steps that it ended."""
    return {
        (line["step"], line["rank"]): line["ids"]
        for path in attempt.root.glob("rows-*")
        for line in lines(path)
    }


def _contents(*checkpoints: Path) -> dict[str, list[Any]]:
    """Returns what each holds by name: of every tensor a hash, of the generators and the rest the
    values.
    """
    folders = [_content(checkpoint) for checkpoint in checkpoints]
    return {
        name: [folder.get(name) for folder in folders]
        for name in sorted({*folders[0], *folders[1]})
    }


def _content(checkpoint: Path) -> dict[str, Any]:
    """Tensors are read from their files, in whose headers the names have no order."""
    state = read_json(checkpoint / SCALARS)
    content: dict[str, Any] = {
        SCALARS: state | {"metrics": {k: state["metrics"][k] for k in (*EXACT, "val_loss")}}
    }
    for file in checkpoint.glob("rank-*.json"):
        content[file.name] = sha256_file(file)
    for file in checkpoint.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            content[f"{file.name}: {name}"] = hashlib.sha256(tensor.tobytes()).hexdigest()
    return content
