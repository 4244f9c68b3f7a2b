#!/usr/bin/env bash
# tools/setup.sh                          make .venv with the pinned CPU stack (make setup)
# tools/setup.sh gpu                      make .venv-gpu with the pinned GPU stack (make setup-gpu);
#                                         with FLASH_ATTN=1 also build flash-attn into it
# tools/setup.sh requirements [--upgrade] rewrite the pinned requirement files (make requirements)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# aarch64 has pins of its own.
SUFFIX=""
[[ $(uname -m) != aarch64 ]] || SUFFIX=-aarch64
VENV=.venv
PINS=requirements-cpu$SUFFIX.txt
MIN_UV="0.9.0"
# Wheels only, except for a package that is published only as source.
WHEELS=(--only-binary :all: --no-binary antlr4-python3-runtime)
export UV_PYTHON_DOWNLOADS=never
# Once, and not by every process where PYTHONDONTWRITEBYTECODE is set or the environment is read-only.
export UV_COMPILE_BYTECODE=1
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Prints a package's entry in a requirement file: its pin and hashes.
pin_of() { awk -v name="$1==" 'index($0, name) == 1 {on = 1} on {print} on && !/\\$/ {exit}' "$2"; }

# Prints the environment's inputs and its folder: after a move, its scripts have stale paths.
fingerprint() {
    pwd -P
    sha256sum "$PINS" setup.py
}

is_ready() {
    [[ -f $VENV/.ready && -x $VENV/bin/python && "$(<"$VENV/.ready")" == "$(fingerprint)" ]] || return 1
    "$VENV/bin/python" -c '' 2>/dev/null
}

# Prints the path of a Python 3.11 or 3.12 of this machine.
find_python() {
    local name path
    for name in python3.11 python3.12 python3 python; do
        # A name on PATH may be a shim without a selected interpreter: ask it for its version.
        path=$("$name" -c '
import sys
if (3, 11) <= sys.version_info[:2] < (3, 13) and sys.maxsize > 2**32:
    print(sys.executable)' 2>/dev/null) || continue
        [[ -n $path ]] && printf '%s\n' "$path" && return
    done
    die "Python 3.11 or 3.12 is needed, but PATH has neither (python3 is: $(python3 --version 2>/dev/null || echo missing))." \
        "On Debian 12 or Ubuntu 24.04: sudo apt-get install python3 python3-venv"
}

uv_is_usable() {
    local version
    version=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
    [[ -n $version && "$(printf '%s\n' "$MIN_UV" "$version" | sort -V | head -n 1)" == "$MIN_UV" ]]
}

# Sets UV to uv from PATH, or else to the pinned one in .venv-bootstrap.
find_uv() {
    local python=$1 pin
    if UV=$(command -v uv) && uv_is_usable "$UV"; then
        return
    fi
    UV=.venv-bootstrap/bin/uv
    uv_is_usable "$UV" && return
    "$python" -c 'import venv, ensurepip; ensurepip.version()' >/dev/null 2>/dev/null || die \
        "$python cannot make a virtual environment (its venv module is not installed)." \
        "Run: sudo apt-get install python3-venv" \
        "Then run make again."
    say "no uv >= $MIN_UV on PATH: installing one into .venv-bootstrap"
    rm -rf .venv-bootstrap
    "$python" -m venv .venv-bootstrap
    pin=$(pin_of uv requirements-cpu.txt)
    [[ -n $pin ]] || die "requirements-cpu.txt does not pin uv."
    printf '%s\n' "$pin" >.venv-bootstrap/uv.txt
    .venv-bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes -r .venv-bootstrap/uv.txt
    uv_is_usable "$UV" || die "the uv in .venv-bootstrap does not run."
}

# One setup at a time; a second one waits, then finds the environment ready.
lock() {
    exec 9<.
    flock 9 2>/dev/null || say "this file system has no flock: run one set-up at a time"
}

make_venv() {
    local python
    is_ready && return
    lock
    is_ready && return
    python=$(find_python)
    find_uv "$python"
    if [[ -f $VENV/.ready && "$(head -n 1 "$VENV/.ready")" == "$(pwd -P)" ]] && "$VENV/bin/python" -c '' 2>/dev/null; then
        rm -f "$VENV/.ready" # complete but older than the pins: update it
    else
        # Missing or incomplete: a package whose unpacking was cut off can look installed.
        "$UV" venv --quiet --clear --python "$python" "$VENV"
    fi
    say "installing $PINS into $VENV"
    "$UV" pip sync --quiet --python "$VENV/bin/python" --require-hashes "${WHEELS[@]}" "$PINS"
    "$UV" pip install --quiet --python "$VENV/bin/python" --no-deps --no-build-isolation -e .
    fingerprint >"$VENV/.ready.tmp"
    mv "$VENV/.ready.tmp" "$VENV/.ready"
    say "done: $VENV with $("$VENV/bin/python" --version)"
}

# Prints what a flash-attn was built from. Its build is kept apart from .ready, so that a later
# `make setup-gpu` without FLASH_ATTN=1 leaves it.
flash_attn_fingerprint() { sha256sum requirements-flash-attn.txt "$PINS"; }

flash_attn_is_built() {
    [[ -f $VENV/.flash-attn && "$(<"$VENV/.flash-attn")" == "$(flash_attn_fingerprint)" ]]
}

build_flash_attn() {
    local archs jobs
    flash_attn_is_built && return
    lock
    flash_attn_is_built && return
    archs=$(flash_attn_archs) jobs=$(flash_attn_jobs)
    find_uv "$(find_python)"
    say "building flash-attn for $archs with MAX_JOBS=$jobs: this can take an hour"
    # uv's cache could return a wheel built for other GPUs. Without FORCE_BUILD the package first
    # looks for a wheel elsewhere.
    FLASH_ATTENTION_FORCE_BUILD=TRUE FLASH_ATTN_CUDA_ARCHS=$archs MAX_JOBS=$jobs \
        "$UV" pip install --quiet --no-cache --python "$VENV/bin/python" --no-deps \
        --no-build-isolation --no-binary flash-attn --reinstall-package flash-attn \
        --require-hashes -r requirements-flash-attn.txt
    flash_attn_fingerprint >"$VENV/.flash-attn"
    say "done: flash-attn"
}

setup_gpu() {
    FLASH_ATTN=${FLASH_ATTN:-0}
    VENV=.venv-gpu PINS=requirements-gpu$SUFFIX.txt
    if is_ready && { [[ $FLASH_ATTN == 0 ]] || flash_attn_is_built; }; then return; fi
    # shellcheck source=tools/check_gpu_host.sh
    source tools/check_gpu_host.sh
    check_gpu_host "$VENV"
    make_venv
    if [[ $FLASH_ATTN == 1 ]]; then
        build_flash_attn
    else
        say "without flash-attn: attention uses torch's varlen_attn (FLASH_ATTN=1 builds flash-attn)"
    fi
}

# compile FILE ARGUMENT ...: pins setup.py's dependencies in FILE, which keeps the versions it has.
# The pins are for the lowest supported Python and hold for 3.12 as well (tests/test_setup.py).
compile() {
    local file=$1
    shift
    "$UV" pip compile setup.py --quiet --python "$PYTHON" --python-version 3.11 \
        --override requirements-override.txt --generate-hashes --no-emit-index-url \
        --custom-compile-command "make requirements" "$@" -o "$file" >/dev/null
}

# flash-attn's pin is in a file of its own: it is built after the rest is installed.
write_flash_attn_requirement() {
    local work
    work=$(mktemp -d)
    cp requirements-flash-attn.txt "$work/all.txt"
    compile "$work/all.txt" --extra flash-attn --no-deps "$@"
    { head -n 2 "$work/all.txt" && pin_of flash-attn "$work/all.txt"; } >requirements-flash-attn.txt
    rm -rf "$work"
}

write_requirements() {
    PYTHON=$(find_python)
    find_uv "$PYTHON"
    # Each with the oldest glibc that its wheels allow.
    compile requirements-cpu.txt --extra cpu --extra dev \
        --python-platform x86_64-manylinux_2_28 "$@"
    compile requirements-gpu.txt --extra gpu --python-platform x86_64-manylinux_2_28 "$@"
    compile requirements-cpu-aarch64.txt --extra cpu --extra dev \
        --python-platform aarch64-manylinux_2_28 "$@"
    compile requirements-gpu-aarch64.txt --extra gpu --python-platform aarch64-manylinux_2_34 "$@"
    write_flash_attn_requirement "$@"
    say "wrote requirements-{cpu,gpu}{,-aarch64}.txt and requirements-flash-attn.txt"
}

case ${1:-} in
    "") make_venv ;;
    gpu) setup_gpu ;;
    requirements) shift && write_requirements "$@" ;;
    *) die "usage: tools/setup.sh [gpu | requirements [--upgrade]]" ;;
esac
