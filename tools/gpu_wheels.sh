#!/usr/bin/env bash
# tools/gpu_wheels.sh [FOLDER]
# Gathers in FOLDER (.gpu-wheels) the packages that `python -m tests.gpu.check` needs on a machine
# without network that has Python 3.12, PyTorch for CUDA 13 and transformers.
#
# On that machine:
#     pip install --no-index --no-deps --target SITE FOLDER/*.whl
#     PYTHONPATH=SITE python -m tests.gpu.check --out FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FOLDER=${1:-.gpu-wheels}
LIMIT_MB=40
PYTHON=${PYTHON:-.venv/bin/python}
PACKAGES=(transformers tokenizers verl tensordict torchdata datasets hydra-core omegaconf trl
    liger-kernel bitsandbytes codetiming dill multiprocess xxhash fsspec pyvers cloudpickle orjson filelock pillow)
# Published only as source.
SOURCES=(antlr4-python3-runtime)
# pip takes each tag literally, without the older ones that it implies.
PLATFORMS=(--platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)

die() {
    printf 'gpu-wheels: %s\n' "$@" >&2
    exit 1
}

# Prints a package's pin and hashes from the GPU stack, or from the development packages of the CPU
# stack.
pin() {
    local file found
    for file in requirements-gpu.txt requirements-cpu.txt; do
        found=$(awk -v name="$1" 'index($0, name "==") == 1 {on = 1} on {print} on && !/\\$/ {exit}' "$file")
        [[ -n $found ]] && printf '%s\n' "$found" && return
    done
    die "neither requirements-gpu.txt nor requirements-cpu.txt has $1."
}

[[ -x $PYTHON ]] || die "$PYTHON is missing: run make setup."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The project's environment has no pip of its own.
"$PYTHON" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --quiet)
for package in "${PACKAGES[@]}"; do pin "$package"; done >"$work/wheels.txt"
for package in "${SOURCES[@]}"; do pin "$package"; done >"$work/sources.txt"

mkdir "$work/found"
"${pip[@]}" download --no-deps --require-hashes --only-binary=:all: --python-version 3.12 --implementation cp \
    "${PLATFORMS[@]}" -r "$work/wheels.txt" -d "$work/found"
"${pip[@]}" wheel --no-deps --require-hashes --no-binary=:all: -r "$work/sources.txt" -w "$work/found"
# bitsandbytes contains its library for every CUDA version.
"$PYTHON" tools/slim_wheel.py "$work"/found/bitsandbytes-*.whl \
    'bitsandbytes/libbitsandbytes_*' bitsandbytes/libbitsandbytes_cuda130.so bitsandbytes/libbitsandbytes_cpu.so

rm -rf "$FOLDER"
mkdir -p "$FOLDER"
mv "$work"/found/*.whl "$FOLDER"
kilobytes=$(du -sk "$FOLDER" | cut -f 1)
printf 'gpu-wheels: %d wheels, %d MiB in %s\n' "$(find "$FOLDER" -name '*.whl' | wc -l)" $((kilobytes / 1024)) "$FOLDER"
((kilobytes <= LIMIT_MB * 1024)) || die "the wheels have more than $LIMIT_MB MiB."
