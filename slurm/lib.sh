# The job scripts source this file, in a job and on the login node. It loads the site's environment
# and starts Python. Outside a job it submits the script, or with --dry-run shows what would run;
# leading --options go to sbatch.
# shellcheck shell=bash

# Slurm runs a copy of the script, so the script's path does not tell where the checkout is.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
IMAGE="" VENV="" OVERRIDES=() EVAL_OPTIONS=()
# shellcheck source=slurm/site.example.env
[[ ! -f slurm/site.env ]] || source slurm/site.env
# Only from here on, because a site's modules may use unset variables.
set -euo pipefail

options=()
if [[ -z ${SLURM_JOB_ID:-} ]]; then
    [[ $0 != *eval.sh ]] || options=("${EVAL_OPTIONS[@]}")
    while [[ ${1:-} == --* ]]; do
        options+=("$1")
        shift
    done
    [[ " ${options[*]} " == *" --dry-run "* ]] || exec sbatch "${options[@]}" "slurm/${0##*/}" "$@"
fi

# If the site has an image, ranks and engines run in it; this Python talks to Slurm and always runs
# on the host.
export IMAGE
python=${VENV:-$PWD/.venv-gpu}/bin/python
[[ -z $IMAGE ]] || python=${VENV:-$PWD/.venv}/bin/python
if [[ ! -x $python ]]; then
    echo "$python does not exist: make setup-gpu, or set VENV in slurm/site.env" >&2
    exit 2
fi

# job train RECIPE [recipe=NAME] [key=value ...]; job eval RUN base|STEP [key=value ...]
job() {
    local kind=$1
    shift
    exec "$python" -m slurm.job "$0" "${options[@]}" -- "$kind" "${OVERRIDES[@]}" -- "$@"
}
