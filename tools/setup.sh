#!/usr/bin/env bash
# tools/setup.sh                          make .venv with the pinned CPU stack (make setup)
# tools/setup.sh gpu                      make .venv-gpu with the pinned GPU stack (make setup-gpu)
# tools/setup.sh requirements [--upgrade] rewrite requirements-{cpu,gpu}.txt (make requirements)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
PINS=requirements-cpu.txt
MIN_UV="0.9.0"
# Wheels only, except for packages that are published only as source.
WHEELS=(--only-binary :all: --no-binary antlr4-python3-runtime --no-binary flash-attn)
export UV_PYTHON_DOWNLOADS=never
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

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
    die "Python 3.11 or 3.12 is needed, and PATH has neither (python3 is: $(python3 --version 2>/dev/null || echo missing))." \
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
    # The pin and its hashes, from requirements-cpu.txt.
    pin=$(awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements-cpu.txt)
    [[ -n $pin ]] || die "requirements-cpu.txt does not pin uv."
    printf '%s\n' "$pin" >.venv-bootstrap/uv.txt
    .venv-bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes -r .venv-bootstrap/uv.txt
    uv_is_usable "$UV" || die "the uv in .venv-bootstrap does not run."
}

make_venv() {
    local python
    is_ready && return
    # One setup at a time; a second one waits, then finds the environment ready.
    exec 9<.
    flock 9 2>/dev/null || say "this file system has no flock: run one set-up at a time"
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

# Both files are resolved for the lowest supported Python; their pins hold for 3.12 as well
# (tests/test_setup.py).
write_requirements() {
    local python
    python=$(find_python)
    find_uv "$python"
    local common=(--quiet --python "$python" --python-version 3.11
        --python-platform x86_64-manylinux_2_31 --generate-hashes --no-emit-index-url --custom-compile-command "make requirements")
    "$UV" pip compile setup.py --extra cpu --extra dev "${common[@]}" "$@" \
        --override requirements-override.txt -o requirements-cpu.txt >/dev/null
    "$UV" pip compile setup.py --extra gpu "${common[@]}" "$@" \
        -o requirements-gpu.txt >/dev/null
    say "wrote requirements-cpu.txt and requirements-gpu.txt"
}

case ${1:-} in
    "") make_venv ;;
    gpu)
        VENV=.venv-gpu PINS=requirements-gpu.txt
        make_venv
        ;;
    requirements) shift && write_requirements "$@" ;;
    *) die "usage: tools/setup.sh [gpu | requirements [--upgrade]]" ;;
esac
