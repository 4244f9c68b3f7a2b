"""Hardware faults of this machine's GPUs, as nvidia-smi reports them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from omegaconf import DictConfig

from trainer.doctor.findings import FATAL, WARNING, Finding

HEALTH = "GPU health"
QUERY = ["nvidia-smi", "-q", "-x"]
LOST = re.compile(r"is lost|Unable to determine the device handle|fallen off the bus")
FIX = "use another node (sbatch --exclude=NODE), and tell your administrators"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a GPU."""

    text: str
    lasting: bool
    """Whether the GPU is unusable until it is reset or replaced; if not, the fault is the trace of
    an error since the driver was loaded.
    """


def faults() -> list[Fault]:
    """Returns the faults of this machine's GPUs; empty without nvidia-smi."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lost = [line.strip() for line in (done.stdout + done.stderr).splitlines() if LOST.search(line)]
    return [*(Fault(line, True) for line in lost), *_listed(done.stdout)]


def check(config: DictConfig) -> Iterator[Finding]:
    """Yields a finding per fault; none if GPUs are not needed or have no fault."""
    for fault in faults() if config.device == "cuda" else ():
        yield Finding(FATAL if fault.lasting else WARNING, HEALTH, fault.text, FIX)


def _listed(xml: str) -> Iterator[Fault]:
    try:
        gpus = ElementTree.fromstring(xml).iter("gpu")
    except ElementTree.ParseError:  # not the list: nvidia-smi failed
        return
    for gpu in gpus:
        name = f"GPU {gpu.get('id')}"
        if count := sum(_errors(gpu)):
            yield Fault(f"{name}: {count} uncorrectable memory errors (ECC)", False)
        if _says(gpu, "remapped_row_pending", "Yes"):
            yield Fault(f"{name}: a memory row waits for a reset to be remapped", False)
        if _says(gpu, "remapped_row_failure", "Yes"):
            yield Fault(f"{name}: a memory row could not be remapped", True)
        action = gpu.findtext(".//gpu_recovery_action", "None")
        if _says(gpu, "reset_required", "Yes") or action not in ("None", "N/A", "[N/A]"):
            yield Fault(f"{name}: it must be reset (nvidia-smi -q: {action})", True)


def _errors(gpu: ElementTree.Element) -> Iterator[int]:
    """Yields the counts of uncorrected memory errors since the driver was loaded."""
    for counter in gpu.iterfind(".//ecc_errors/volatile/*"):
        text = (counter.text or "").strip()
        if "uncorrectable" in counter.tag and text.isdigit():
            yield int(text)


def _says(gpu: ElementTree.Element, tag: str, text: str) -> bool:
    return any((found.text or "").strip() == text for found in gpu.iter(tag))
