# The job scripts source this file, in a job and on the login node. It loads the site's environment
# and starts Python, which in a job does the work, and elsewhere checks the arguments and submits
# the script.
# shellcheck shell=bash

SCRIPT=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
# A job inherits the environment in which sbatch was called. Inside another allocation, that has the
# CPU binding of a step, with which all ranks would share one core.
unset MASTER_ADDR MASTER_PORT
if [[ -n ${SLURM_STEP_ID:-} ]]; then
    mapfile -t leaks < <(compgen -e | grep -E '^SLURM_(CPU_BIND|MEM_BIND|STEP_|SRUN_|PTY_)')
    unset "${leaks[@]}"
fi
# DOCTOR_VENV is the environment of the doctor that asks whether sbatch would accept the script.
CONTAINER=() LOCAL_ENV="" IMAGE="" VENV=${DOCTOR_VENV:-}
# shellcheck source=slurm/site.example.env
[[ ! -f slurm/site.env ]] || source slurm/site.env
# Only from here on, because a site's modules may use unset variables.
set -euo pipefail

if [[ -n $IMAGE ]]; then
    echo "slurm/site.env: IMAGE has no effect: set CONTAINER=(apptainer exec --nv $IMAGE) instead" >&2
    exit 2
fi
# Python reads the site's lists itself. In a container, only ranks and engines run; this Python
# talks to Slurm and always runs on the host.
export LOCAL_ENV
python=${VENV:-$PWD/.venv-gpu}/bin/python
[[ -z ${CONTAINER[*]-} ]] || python=${VENV:-$PWD/.venv}/bin/python
if [[ ! -x $python ]]; then
    echo "$python does not exist: make setup-gpu, or set VENV in slurm/site.env" >&2
    exit 2
fi

# job train RECIPE [ARGUMENT ...]; job eval|rl|data [ARGUMENT ...]
job() {
    exec "$python" -m slurm.job "$SCRIPT" "$@"
}
