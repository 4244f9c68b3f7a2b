# tools/setup.sh sources this file. check_gpu_host VENV tells whether this machine can hold, build
# and run the GPU stack. It only reads, by commands found on PATH.
# shellcheck shell=bash

MIN_DRIVER=580 # of CUDA 13, which PyPI's torch 2.11 is built for
CUDA_MAJOR=13
# Measured without flash-attn: 10.5 GB and 88,500 files and folders. Bytecode, the folders of uv's
# cache and what is unpacked meanwhile come on top.
ROOM_GB=12 ROOM_FILES=120000

FAULTS=()
fault() { FAULTS+=("$*"); }

# Whether version $1 is $2 or newer.
at_least() { [[ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

# Prints the glibc that the wheels of a machine's pin file need.
needed_glibc() {
    case $1 in
        x86_64) echo 2.28 ;;
        aarch64) echo 2.34 ;;
    esac
}

check_machine() {
    local machine found needed fix="set up on a node with a newer system"
    machine=$(uname -m)
    needed=$(needed_glibc "$machine")
    if [[ -z $needed ]]; then
        fault "$machine: the pinned wheels are for x86_64 and aarch64 only"
        return
    fi
    found=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}') || found=""
    [[ -n $found ]] && at_least "$found" "$needed" && return
    # With the container the host needs only `make setup`, whose wheels are for 2.28.
    [[ $machine != aarch64 ]] || fix+=", or use the container (from glibc 2.28 on)"
    fault "glibc ${found:-not found} on $(uname -n): the pinned wheels need $needed or newer: $fix"
}

has_amd_gpu() { [[ -e /dev/kfd ]] || command -v rocm-smi amd-smi >/dev/null; }

# Prints nvidia-smi's answer to a query, one line per GPU; nothing without a GPU or a driver.
ask_gpus() {
    local said
    said=$(nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null) || return 0
    grep -E '^[0-9.]+$' <<<"$said" || true
}

# cuda-compat brings a newer CUDA to an older driver; the table's head shows which CUDA there is.
cuda_of_driver() {
    nvidia-smi 2>/dev/null | sed -nE 's/.*CUDA [A-Za-z ]*Version: *([0-9]+).*/\1/p' | head -n 1
}

check_driver() {
    local driver cuda
    driver=$(ask_gpus driver_version | head -n 1)
    if [[ -z $driver ]]; then
        if has_amd_gpu; then
            fault "AMD GPUs are not supported: the pinned stack is for NVIDIA's CUDA"
        else
            say "no NVIDIA GPU here: warmstart doctor checks the driver in the job (580 or newer)"
        fi
        return
    fi
    at_least "$driver" $MIN_DRIVER && return
    cuda=$(cuda_of_driver) || cuda=""
    [[ -n $cuda ]] && at_least "$cuda" $CUDA_MAJOR && return
    fault "NVIDIA driver $driver on $(uname -n): torch 2.11 is built for CUDA $CUDA_MAJOR and" \
        "needs $MIN_DRIVER or newer: use nodes with a newer driver, load the site's module of" \
        "cuda-compat $CUDA_MAJOR, or use the container (docs/clusters.md)"
}

# Prints the nvcc that torch would build with.
find_nvcc() {
    local home=${CUDA_HOME:-${CUDA_PATH:-}}
    if [[ -n $home ]]; then
        printf '%s\n' "$home/bin/nvcc"
    else
        command -v nvcc || printf '%s\n' /usr/local/cuda/bin/nvcc
    fi
}

check_flash_attn() {
    local nvcc release
    [[ $FLASH_ATTN != 0 ]] || return 0
    if [[ $FLASH_ATTN != 1 ]]; then
        fault "FLASH_ATTN=$FLASH_ATTN is neither 0 nor 1: 1 builds flash-attn"
        return
    fi
    nvcc=$(find_nvcc)
    release=$("$nvcc" --version 2>/dev/null | sed -nE 's/.*release ([0-9.]+).*/\1/p') || release=""
    # torch builds extensions only with the CUDA that it is built with.
    if [[ ${release%%.*} != "$CUDA_MAJOR" ]]; then
        fault "nvcc ${release:-not found} ($nvcc): FLASH_ATTN=1 needs nvcc of CUDA $CUDA_MAJOR:" \
            "module load CUDA/$CUDA_MAJOR..., or leave FLASH_ATTN out (attention is then torch's)"
    fi
    if [[ -z $(flash_attn_archs) ]]; then
        fault "FLASH_ATTN=1, and no GPU here to build it for: run it on a GPU node, or name the" \
            "GPUs of the job: FLASH_ATTN_CUDA_ARCHS=80 (A100), 90 (H100) or 100 (B200)"
    fi
}

# Prints flash-attn's names of the architectures to build for, as in 80;90.
flash_attn_archs() {
    if [[ -n ${FLASH_ATTN_CUDA_ARCHS:-} ]]; then
        printf '%s\n' "$FLASH_ATTN_CUDA_ARCHS"
        return
    fi
    # Code for 8.0 runs on every 8.x, and so on. flash-attn supports no other generation.
    ask_gpus compute_cap | awk -F . '$1 ~ /^(8|9|10|12)$/ {print $1 "0"}' | sort -nu | paste -sd ';'
}

# Prints how many files to compile at once: flash-attn counts 9 GB and two cores for each.
flash_attn_jobs() {
    local by_memory by_cores
    if [[ -n ${MAX_JOBS:-} ]]; then
        printf '%s\n' "$MAX_JOBS"
        return
    fi
    by_memory=$(($(available_mb) / 9216)) by_cores=$(($(nproc) / 2))
    printf '%s\n' $((by_memory < by_cores ? by_memory : by_cores)) | awk '{print $1 < 1 ? 1 : $1}'
}

# Prints the memory that is free, or the job's share if that is less.
available_mb() {
    local free share=${SLURM_MEM_PER_NODE:-0}
    free=$(free -m | awk '/^Mem:/ {print $7}')
    # A share of 0 is all of the node's memory.
    printf '%s\n' $((share > 0 && share < free ? share : free))
}

# Prints the folder of uv's cache, or the part of its path that exists.
uv_cache() {
    local folder=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
    until [[ -d $folder ]]; do folder=$(dirname "$folder"); done
    printf '%s\n' "$folder"
}

file_system() { df -P "$1" | awk 'NR == 2 {print $NF}'; }

# check_room FOLDER FIX: space and inodes of its file system. df does not see quotas.
check_room() {
    local folder=$1 fix=$2 free files
    free=$(df -Pk "$folder" | awk 'NR == 2 {print int($4 / 1000 / 1000)}')
    if ((free < ROOM_GB)); then
        fault "$free GB free in $folder: the environment needs $ROOM_GB GB: $fix"
    fi
    # Some file systems have no count of inodes.
    files=$(df -Pi "$folder" | awk 'NR == 2 && $2 > 0 {print $4}')
    if [[ $files =~ ^[0-9]+$ ]] && ((files < ROOM_FILES)); then
        fault "$files inodes free in $folder: the environment needs $ROOM_FILES: $fix"
    fi
}

check_rooms() {
    local here cache
    here=$(pwd -P) cache=$(uv_cache)
    check_room "$here" "free some, or clone to another file system"
    [[ "$(file_system "$cache")" == "$(file_system "$here")" ]] ||
        check_room "$cache" "that is uv's cache: export UV_CACHE_DIR=FOLDER on a larger file system"
}

# Prints every fault on its own line, and exits with code 2 if there is one.
check_gpu_host() {
    local venv=$1
    FAULTS=()
    check_machine
    check_driver
    check_flash_attn
    # An environment that is complete but older than the pins is updated in place.
    [[ -f $venv/.ready ]] || check_rooms
    ((${#FAULTS[@]} == 0)) && return
    printf 'setup: %s\n' "${FAULTS[@]}" >&2
    exit 2
}
