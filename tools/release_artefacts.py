"""Writes what tests/test_releases.py reads of a release: a finished run, a stopped one, their
dataset and recipe, and the command's interface, all made by the release's own code.

    git worktree add --detach FOLDER TAG
    python -m tools.release_artefacts FOLDER    # minutes, on two cores

The result is tests/releases/VERSION.tar.gz and VERSION.json. Weights that no test reads are left
out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common.files import write_json

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "releases"
RECIPE = """\
# A recipe of a user's own.
defaults: [tiny, _self_]

model:
  init:
    hidden_size: 16
    intermediate_size: 16
    num_hidden_layers: 1
    num_attention_heads: 1
    num_key_value_heads: 1

data:
  name: sums
  arithmetic:
    problems: 150
  spare_share: 0
  test_rows: 8

train:
  batch_size: 16
  save_every: 9
  ranks: 1

eval:
  rollouts: 2
  max_tokens: 16
  engines: 1
"""
MIDDLE = 9
"""Step of the finished run that is evaluated in addition to its last one."""
STOPPED_AFTER = 5
LEFT_OUT = re.compile(
    r"runs/finished/(base|checkpoints/.+|export/.+)/(shard|model).*\.safetensors|.*\.(log|png|lock)|"
    r".*/log|runs/\w+/report\..+|runs/finished/export/.+/tokenizer\.json"
)
INTERFACE = """
import json
from common import exit_codes
from trainer.doctor.findings import Finding, Located
from trainer.recipe import files, protocols, schema
from warmstart.cli import VERBS

options = {
    verb: {
        name: "action" not in how
        for names, how in arguments
        for name in (names if names[0].startswith("-") else ())
    }
    for verb, (_, arguments) in VERBS.items()
}
places = {
    verb: [names[0] for names, _ in arguments if not names[0].startswith("-")]
    for verb, (_, arguments) in VERBS.items()
}
codes = {name: code for name, code in vars(exit_codes).items() if name.isupper()}
print(json.dumps({
    "options": options,
    "arguments": places,
    "exit_codes": codes,
    "recipes": files.recipes(),
    "protocols": protocols.names(),
    "keys": dict(schema.recipe_keys()),
    "json": {"doctor": list(Located(Finding("", "", ""), []).json())},
}))
"""
"""Prints what the command takes: each verb's options with whether they take a value, its other
arguments, the recipes' keys with whether a run may change them, and the keys of the doctor's JSON.
"""


def places(value: object, prefix: str = "") -> list[str]:
    """Returns the dotted keys of a JSON value; ``[]`` is an element of an array."""
    if isinstance(value, dict):
        own = [f"{prefix}{key}" for key in value]
        return own + [p for k, inner in value.items() for p in places(inner, f"{prefix}{k}.")]
    if isinstance(value, list):
        found = (place for inner in value for place in places(inner, f"{prefix}[]."))
        return list(dict.fromkeys(found))
    return []


class Release:
    """The code of a release, run in a folder of its own."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}

    def python(self, *words: str) -> str:
        """Returns what a program prints. Raises CalledProcessError when it fails."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def warmstart(self, *words: str) -> str:
        """Returns what the command prints."""
        return self.python("-m", "warmstart", *words)

    def stop_in_training(self, *words: str) -> None:
        """Starts training and sends it Ctrl-C's signal after some steps."""
        command = [sys.executable, "-m", "warmstart", "train", *words]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment)
        metrics = self.folder / "runs" / "stopped" / "attempts" / "1" / "metrics.jsonl"
        while process.poll() is None and not (
            metrics.exists() and len(metrics.read_bytes().splitlines()) >= STOPPED_AFTER
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        if process.wait() != 75:
            raise SystemExit(f"training ended with {process.returncode}, not 75")


def main(arguments: Sequence[str]) -> None:
    """Writes the artefacts of the release in the checkout that is named."""
    checkout = Path(arguments[0]).resolve()
    found = re.search(r'version="(.+)"', (checkout / "setup.py").read_text(encoding="utf-8"))
    assert found, "setup.py names the version"
    version = found[1]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        release = Release(checkout, folder)
        (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
        release.warmstart("run", "mine.yaml", "run.name=finished")
        release.warmstart("export", "finished", str(MIDDLE))
        release.warmstart("eval", "finished", str(MIDDLE))
        release.stop_in_training("mine.yaml", "run.name=stopped")
        printed = {
            "status": release.warmstart("status", "finished", "--json"),
            "runs": release.warmstart("runs", "--json"),
        }
        interface = json.loads(release.python("-c", INTERFACE))
        interface["json"] |= {verb: places(json.loads(text)) for verb, text in printed.items()}
        FOLDER.mkdir(exist_ok=True)
        write_json(FOLDER / f"{version}.json", interface)
        with tarfile.open(FOLDER / f"{version}.tar.gz", "w:gz", compresslevel=9) as archive:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = str(path.relative_to(folder))
                if not LEFT_OUT.fullmatch(name):
                    archive.add(path, name)


if __name__ == "__main__":
    main(sys.argv[1:])
