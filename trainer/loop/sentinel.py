"""Raises a run's alarms, the same on all ranks: adds rows and hosts, starts the recipe's command,
and decides whether to stop.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from omegaconf import DictConfig

from trainer.alarms.alarms import KINDS, OF_ROWS, Alarm, Alarms
from trainer.batching.dataset import TokenDataset
from trainer.loop.on_alarm import Command
from trainer.loop.step import RowLoss
from trainer.process import process_group
from trainer.run import step_metrics
from trainer.run.folder import Run
from trainer.run.step_metrics import StepMetrics, finite

ROWS = 5
"""Rows that an alarm names."""


class Sentinel:
    """Judges the steps of one attempt. The metrics of a step are the same on all ranks, and so are
    its alarms.
    """

    def __init__(
        self, run: Run, config: DictConfig, rows: TokenDataset, total: int, judged: int
    ) -> None:
        """Continues after step ``judged`` of the run's ``total`` steps. Collective."""
        self.run, self.config, self.rows = run, config, rows
        settings, rank = config.train, int(os.environ["RANK"])
        self.command = Command(settings.on_alarm) if rank == 0 else None
        on = settings.stop_on_alarm
        self.stopping = set((KINDS if on else ()) if isinstance(on, bool) else on)
        self.held: str | None = None
        """The alarm for which to stop."""
        self.hosts = process_group.everyone(os.uname().nodename)
        early = settings.warmup_steps or math.ceil(settings.warmup_ratio * total)
        alarms = Alarms(settings.clip_grad, early)
        if rank == 0:
            for step in step_metrics.read(run):
                if step["step"] <= judged:
                    alarms.feed(step)
        self.alarms: Alarms = process_group.agree(alarms)

    def judge(
        self, metrics: StepMetrics, row_losses: Callable[[], Sequence[RowLoss]] | None
    ) -> StepMetrics:
        """Returns the metrics of the next step with its alarms; ``row_losses`` is None for a step
        that another attempt trained. Alarms in ``metrics`` are kept and not raised again.

        Collective.
        """
        known = {alarm["kind"] for alarm in metrics.alarms}
        found = [a for a in self.alarms.feed(asdict(metrics)) if a.kind not in known]
        wanted = row_losses is not None and any(alarm.kind in OF_ROWS for alarm in found)
        highest = row_losses()[:ROWS] if wanted and row_losses is not None else []
        new = [self._entry(alarm, highest if alarm.kind in OF_ROWS else []) for alarm in found]
        judged = replace(metrics, alarms=[*metrics.alarms, *new])
        for entry, line in zip(new, judged.alarm_lines()[len(metrics.alarms) :], strict=True):
            if entry["kind"] in self.stopping and self.held is None:
                self.held = line
            if self.command is not None:
                self.command.start(line, self._parts(entry, metrics.step))
        return judged

    def close(self) -> None:
        """Waits briefly for commands that are still running."""
        if self.command is not None:
            self.command.close()

    def _entry(self, alarm: Alarm, rows: Sequence[RowLoss]) -> dict[str, Any]:
        host = None if alarm.rank is None else self.hosts[alarm.rank]
        text = alarm.text if host is None else f"{alarm.text}; it is on {host}"
        named: list[dict[str, Any]] = [
            {
                "row": row.row,
                "id": self.rows.id(row.row),
                "loss": finite(row.loss),
                "ranks": list(row.ranks),
                "host": row.host,
            }
            for row in rows
        ]
        if named:
            text += f"; rows with the highest loss: {'; '.join(map(_told, named))}"
            text += f"; to see the first: {self._inspect(named[0]['row'])}"
        return {"kind": alarm.kind, "text": text, "rank": alarm.rank, "host": host, "rows": named}

    def _inspect(self, row: int) -> str:
        config, words = self.config, ["warmstart", "inspect", self.config.name]
        if config.data.dir != "data":
            words.append(f"data.dir={config.data.dir}")
        if config.data.name != config.name:
            words.append(f"data.name={config.data.name}")
        return shlex.join([*words, "--row", str(row)])

    def _parts(self, entry: dict[str, Any], step: int) -> dict[str, str]:
        return {
            "KIND": entry["kind"],
            "STEP": str(step),
            "RUN": str(self.run.root.absolute()),
            "ROWS": " ".join(row["id"] for row in entry["rows"]),
            "RANK": "" if entry["rank"] is None else str(entry["rank"]),
            "HOST": entry["host"] or "",
        }


def _told(row: dict[str, Any]) -> str:
    loss = "loss not finite" if row["loss"] is None else f"loss {row['loss']:.3f}"
    noun = "rank" if len(row["ranks"]) == 1 else "ranks"
    ranks = ", ".join(map(str, row["ranks"]))
    return f"row {row['row']} ({loss}, id {row['id']}, {noun} {ranks} on {row['host']})"
