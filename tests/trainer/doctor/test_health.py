"""What nvidia-smi says is broken, from texts as it prints them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainer.doctor.findings import FATAL, WARNING
from trainer.doctor.health import check, faults
from trainer.recipe import load as configs

LIST = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
 <driver_version>580.82.07</driver_version>
 <gpu id="00000000:07:00.0">
  <gpu_reset_status><reset_required>{reset}</reset_required></gpu_reset_status>
  <gpu_recovery_action>{action}</gpu_recovery_action>
  <ecc_errors>
   <volatile>
    <sram_correctable>7</sram_correctable>
    <sram_uncorrectable_parity>{parity}</sram_uncorrectable_parity>
    <dram_correctable>0</dram_correctable>
    <dram_uncorrectable>{dram}</dram_uncorrectable>
   </volatile>
   <aggregate><dram_uncorrectable>12</dram_uncorrectable></aggregate>
  </ecc_errors>
  <remapped_rows>
   <remapped_row_pending>{pending}</remapped_row_pending>
   <remapped_row_failure>{failure}</remapped_row_failure>
  </remapped_rows>
 </gpu>
 <gpu id="00000000:0F:00.0"><ecc_errors>N/A</ecc_errors></gpu>
</nvidia_smi_log>"""
WELL = {
    "reset": "No",
    "action": "None",
    "parity": "0",
    "dram": "0",
    "pending": "No",
    "failure": "No",
}
Says = Callable[..., None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Makes nvidia-smi print a text and exit."""

    def make(text: str, code: int = 0) -> None:
        (tmp_path / "text").write_text(text)
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat '{tmp_path}/text'\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return make


@pytest.mark.parametrize(
    ("changes", "text", "lasting"),
    [
        ({"dram": "2", "parity": "1"}, "3 uncorrectable memory errors (ECC)", False),
        ({"parity": "N/A", "dram": "1"}, "1 uncorrectable memory errors (ECC)", False),
        ({"pending": "Yes"}, "a memory row waits for a reset to be remapped", False),
        ({"failure": "Yes"}, "a memory row could not be remapped", True),
        ({"reset": "Yes"}, "it must be reset", True),
        (
            {"action": "Drain and Reset"},
            "it must be reset (nvidia-smi -q: Drain and Reset)",
            True,
        ),
    ],
)
def test_a_fault_of_a_gpu(says: Says, changes: dict[str, str], text: str, lasting: bool) -> None:
    says(LIST.format(**WELL | changes))
    (fault,) = faults()
    assert fault.text.startswith(f"GPU 00000000:07:00.0: {text}") and fault.lasting is lasting


def test_a_lost_gpu_and_a_list_that_is_none(says: Says) -> None:
    lost = "Unable to determine the device handle for GPU0: 0000:07:00.0: GPU is lost."
    says(f"{lost} Reboot the system to recover this GPU\n", 15)
    (fault,) = faults()
    assert fault.lasting and fault.text.startswith(lost)
    says("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    assert faults() == []


def test_only_who_needs_gpus_hears_of_them(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    says(LIST.format(**WELL))
    assert list(check(configs.load("sft_4b", []))) == []
    says(LIST.format(**WELL | {"failure": "Yes", "dram": "1"}))
    assert sorted(f.level for f in check(configs.load("sft_4b", []))) == [FATAL, WARNING]
    assert list(check(configs.load("tiny", []))) == []
