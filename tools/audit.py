"""Checks the pinned requirements against the known advisories of the OSV database (`make audit`).

Exits with 0 when no advisory applies, 1 when one does that tools/audit_exceptions.yaml does not
name, and 2 when the advisories cannot be read.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.exit_codes import DONE, FAILED, reported

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements-cpu.txt", "requirements-gpu.txt", "requirements-flash-attn.txt")
"""The files for aarch64 pin the same versions."""
EXCEPTIONS = ROOT / "tools" / "audit_exceptions.yaml"
KEYS = {"id", "package", "until", "reason"}


@dataclass(frozen=True)
class Advisory:
    """An advisory that applies to a pin."""

    package: str
    version: str
    ids: tuple[str, ...]
    """Its id and its aliases."""
    fixed: tuple[str, ...]
    """Versions that do not have the fault."""

    def line(self) -> str:
        """Returns the advisory as one line of text."""
        fix = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no fixed version is known"
        return f"{self.package} {self.version}: {', '.join(self.ids)}: {fix}"


def advisories(file: Path, service: str | None) -> list[Advisory]:
    """Returns the advisories that apply to a requirement file's pins. ``service`` is the address of
    OSV's query API, if it is not the public one.

    Raises UserError when the advisories cannot be read, for all pins or for a single one.
    """
    if importlib.util.find_spec("pip_audit") is None:
        raise UserError("pip-audit is missing in this environment: make setup")
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    command += ["--vulnerability-service", "osv", "--progress-spinner", "off", "--format", "json"]
    command += ["--osv-url", service] if service else []
    done = subprocess.run([*command, "-r", str(file)], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as e:
        said = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        raise UserError(
            f"{file.name} is not audited: {said[-1][:300]}: run make audit where the advisory "
            "database can be reached"
        ) from e
    if skipped := [f"{pin['name']} ({pin['skip_reason']})" for pin in found if "vulns" not in pin]:
        raise UserError(f"{file.name} is not audited in full: {'; '.join(skipped)}")
    return [
        Advisory(
            pin["name"],
            pin["version"],
            tuple(sorted({of["id"], *of["aliases"]})),
            tuple(of["fix_versions"]),
        )
        for pin in found
        for of in pin["vulns"]
    ]


def faults(found: Sequence[Advisory], exceptions: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each advisory that no exception names, and for each exception that is out
    of date or that no advisory needs.
    """
    excepted = {(of["package"], of["id"]): of for of in exceptions}
    for advisory in found:
        named = [excepted[key] for i in advisory.ids if (key := (advisory.package, i)) in excepted]
        if not named:
            yield advisory.line()
        elif (until := named[0]["until"]) <= date.today():
            yield f"{advisory.line()} (its exception ended on {until})"
    needed = {(advisory.package, i) for advisory in found for i in advisory.ids}
    for package, i in excepted.keys() - needed:
        yield f"{EXCEPTIONS.name}: no pin needs the exception for {package}, {i}: delete it"


def read_exceptions(path: Path) -> list[dict[str, Any]]:
    """Returns the exceptions in a file. Raises UserError when one lacks a reason or a date."""
    exceptions = yaml.safe_load(path.read_text(encoding="utf-8"))
    for of in exceptions:
        if of.keys() != KEYS or not isinstance(of["until"], date) or not of["reason"]:
            raise UserError(f"{path}: an exception needs {', '.join(sorted(KEYS))}; it has {of}")
    return exceptions


def audit(files: Sequence[Path], exceptions: Path, service: str | None) -> int:
    """Prints what is wrong with the pins of ``files``; returns the exit code."""
    allowed = read_exceptions(exceptions)
    found = {line.line(): line for file in files for line in advisories(file, service)}
    wrong = sorted(faults(list(found.values()), allowed))
    passed = f"{len(found)} advisories, {len(allowed)} excepted"
    print(*(wrong or [f"no advisory applies to the pins ({passed})"]), sep="\n")
    return FAILED if wrong else DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Audits the requirement files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", help="address of another server with OSV's query API")
    parser.add_argument("--exceptions", type=Path, default=EXCEPTIONS)
    parser.add_argument("files", type=Path, nargs="*", default=[ROOT / name for name in FILES])
    given = parser.parse_args(arguments)
    return reported(lambda: audit(given.files, given.exceptions, given.service))


if __name__ == "__main__":
    sys.exit(main())
