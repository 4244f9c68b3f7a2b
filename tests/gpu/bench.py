"""One case in a process of its own: its order comes on stdin, its rows go to the check's file as
they are made.

    python -m tests.gpu.bench

``tests.gpu.runner`` starts it and sets the environment of a single rank.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tests.gpu import rows, stand_ins
from tests.gpu.cases import Case
from tests.gpu.rows import Row
from tests.gpu.setting import Load, Setting, from_dict
from trainer.batching import sampler
from trainer.batching.flops import Shape
from trainer.recipe import load as configs


@dataclass(frozen=True)
class Bench:
    """Gives a case its setting and folder, and takes its rows."""

    setting: Setting
    folder: Path
    """Shared by the cases of a check: model, rows, checkpoints."""
    out: Path
    case: Case

    @property
    def load(self) -> Load:
        """The rows and layers that the case trains."""
        return self.setting.loads[self.case.load]

    @property
    def on_gpu(self) -> bool:
        return self.setting.device == "cuda"

    def model(self, layers: int) -> Path:
        """Folder of the model with its first ``layers`` layers."""
        return self.folder / f"model-{layers}"

    def data(self, load: str) -> Path:
        """Folder of a load's dataset."""
        return self.folder / "data" / load.replace(" ", "-")

    def config(self) -> DictConfig:
        """The recipe of the case's load on one rank with this model and these rows, and the case's
        settings.
        """
        load, data = self.load, self.data(self.case.load)
        return configs.load(
            load.recipe,
            [
                f"device={self.setting.device}",
                "data.source=none",
                f"data.dir={data.parent}",
                f"data.name={data.name}",
                f"run.root={self.folder}/runs",
                f"model.path={self.model(load.layers)}",
                f"data.max_length={load.length}",
                f"train.max_tokens_per_gpu={load.length}",
                f"train.precision={self.setting.precision}",
                f"train.batch_size={load.rows}",
                "train.epochs=1000",
                f"train.max_steps={self.setting.steps}",
                "train.ranks=1",
                "train.sequence_parallel=1",
                # On a CPU, compiling takes longer than all the steps.
                *([] if self.on_gpu else ["train.compile=false"]),
                *self.case.overrides,
            ],
        )

    def shape(self, config: DictConfig) -> Shape:
        """The shape that ``config`` trains."""
        return replace(
            self.setting.shape, layers=self.load.layers, lora_rank=config.train.lora_rank or 0
        )

    def step_lengths(self, config: DictConfig) -> list[dict[int, int]]:
        """Row -> tokens of each step of a training case."""
        lengths, train = self.load.lengths(self.setting.steps), config.train
        chosen = (
            sampler.step_rows(step, len(lengths), train.batch_size, train.seed).tolist()
            for step in range(self.setting.steps)
        )
        return [{row: lengths[row] for row in step} for step in chosen]

    def figure(self, metric: str, unit: str, ours: float, **others: Any) -> None:
        """Adds a measured row; see ``rows.figure``."""
        rows.put(self.out, rows.figure(self.case.name, metric, unit, ours, **others))

    def skip(self, metric: str, note: str, **others: Any) -> None:
        """Adds a row without a figure of ours."""
        rows.put(self.out, Row(self.case.name, metric, status=rows.SKIPPED, note=note, **others))

    def figures(self, case: str) -> dict[str, float]:
        """Metric -> figure of a case that has run."""
        return {
            r.metric: r.ours
            for r in rows.read(self.out).rows
            if r.case == case and r.ours is not None
        }


def order(bench: Bench) -> str:
    """The order for ``main``."""
    values = {"setting": asdict(bench.setting), "folder": str(bench.folder), "out": str(bench.out)}
    return json.dumps(values | {"case": asdict(bench.case)})


def run(bench: Bench) -> None:
    """Calls the case's function."""
    module, _, function = bench.case.function.partition(":")
    getattr(importlib.import_module(module), function)(bench)


def main() -> None:
    """Reads the order and runs the case."""
    stand_ins.install()
    values = json.loads(sys.stdin.read())
    case = values["case"]
    lists = {name: tuple(case[name]) for name in ("needs", "after", "overrides", "arguments")}
    run(
        Bench(
            from_dict(values["setting"]),
            Path(values["folder"]),
            Path(values["out"]),
            Case(**case | lists),
        )
    )


if __name__ == "__main__":
    main()
