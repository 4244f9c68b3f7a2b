"""Real runs on a dataset of which a few rows are garbled, and clean ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.files import read_json
from tests.conftest import ROOT, environment, warmstart
from trainer.batching import sampler
from trainer.batching.dataset import TokenDataset
from trainer.run import step_metrics
from trainer.run.folder import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

AT, BAD, BATCH, SEED = 60, 4, 32, 100
"""The garbled rows are the first ``BAD`` of this step and of every tenth step after it."""
PLANT = """
import sys
from pathlib import Path
from tests.trainer.loop import tiny_runs
tokens, rows, words, ranks = sys.argv[1:]
if rows:
    tiny_runs.garble(Path(tokens), [int(row) for row in rows.split()], 1)
run, codes = tiny_runs.train(words.split(), int(ranks))
print(codes)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("planted")
    warmstart("data", "tiny", folder=made)
    return made


def run_of(folder: Path, rows: list[int], ranks: int, *words: str) -> tuple[Run, str]:
    words = (f"train.seed={SEED}", "train.max_steps=75", f"run.name=planted{ranks}", *words)
    tokens = folder / "data" / "tiny" / "tokens" / "train.arrow"
    listed = " ".join(map(str, rows))
    done = subprocess.run(
        [sys.executable, "-c", PLANT, str(tokens), listed, " ".join(words), str(ranks)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return Run(folder / "runs" / f"planted{ranks}"), done.stdout.splitlines()[-1]


def planted(folder: Path) -> tuple[list[int], list[int]]:
    """Returns the rows to garble, and those of them that step ``AT`` trains."""
    count = len(TokenDataset(folder / "data" / "tiny" / "tokens" / "train.arrow"))
    steps = [
        sampler.step_rows(step - 1, count, BATCH, SEED)[:BAD].tolist()
        for step in range(AT, sampler.steps_per_epoch(count, BATCH), 10)
    ]
    return [row for rows in steps for row in rows], steps[0]


def test_garbled_rows_are_named_at_their_step_and_stop_the_run(folder: Path) -> None:
    """On one rank, and on two that share each row's tokens; the same rows, with the same losses."""
    rows, at = planted(folder)
    named = []
    for ranks, stop in ((1, "true"), (2, "false")):
        note, command = folder / f"note{ranks}", folder / f"tell{ranks}.sh"
        command.write_text(
            f'#!/bin/sh\nprintf "%s|%s" "$WARMSTART_ALARM_STEP" "$WARMSTART_ALARM" >> {note}\n'
        )
        command.chmod(0o755)
        run, codes = run_of(
            folder,
            rows if ranks == 1 else [],
            ranks,
            f"train.stop_on_alarm={stop}",
            f"train.sequence_parallel={ranks}",
            f"train.on_alarm={command}",
        )
        steps = {step["step"]: step for step in step_metrics.read(run)}
        first = min(number for number, step in steps.items() if step["alarms"])
        (loss,) = [alarm for alarm in steps[first]["alarms"] if alarm["kind"] == "loss"]
        assert first == AT and {row["row"] for row in loss["rows"][:BAD]} == set(at)
        assert f"warmstart inspect tiny --row {loss['rows'][0]['row']}" in loss["text"]
        assert note.read_text().startswith(f"{AT}|ALARM (")
        named.append({row["row"]: row["loss"] for row in loss["rows"]})
        if ranks == 1:
            assert codes == "[75]" and max(steps) == AT and run.checkpoints == [AT]
            assert "ALARM (loss)" in read_json(run.attempts[-1].outcome)["alarm"]
    assert named[1] == pytest.approx(named[0], rel=0.02)


def test_clean_runs_raise_no_alarm(tmp_path: Path) -> None:
    """Thresholds were chosen on the seeds 100 to 105."""
    warmstart("data", "tiny", folder=tmp_path)
    seeds = [str(seed) for seed in range(20)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.loop.tiny_runs", str(tmp_path), "1", *seeds],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for seed in seeds:
        assert f"seed {seed}: exit [0], 236 steps, 0 alarms" in done.stdout
