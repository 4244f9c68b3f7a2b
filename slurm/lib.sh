# The job scripts source this file, in a job and on the login node. It loads the site's environment
# and starts Python, which in a job does the work, and elsewhere checks the arguments and submits
# the script.
# shellcheck shell=bash

SCRIPT=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
# DOCTOR_VENV is the environment of the doctor that asks whether sbatch would accept the script.
IMAGE="" VENV=${DOCTOR_VENV:-} EVAL_OPTIONS=()
# shellcheck source=slurm/site.example.env
[[ ! -f slurm/site.env ]] || source slurm/site.env
# Only from here on, because a site's modules may use unset variables.
set -euo pipefail

# If the site has an image, ranks and engines run in it; this Python talks to Slurm and always runs
# on the host.
export IMAGE
python=${VENV:-$PWD/.venv-gpu}/bin/python
[[ -z $IMAGE ]] || python=${VENV:-$PWD/.venv}/bin/python
if [[ ! -x $python ]]; then
    echo "$python does not exist: make setup-gpu, or set VENV in slurm/site.env" >&2
    exit 2
fi

# job train RECIPE [ARGUMENT ...]; job eval [ARGUMENT ...]
job() {
    local kind=$1
    shift
    # Bash before 4.4 takes an empty list for an unset variable.
    exec "$python" -m slurm.job "$SCRIPT" "$kind" ${EVAL_OPTIONS[@]+"${EVAL_OPTIONS[@]}"} -- "$@"
}
