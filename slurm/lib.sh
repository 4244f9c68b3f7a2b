# Sourced by the job scripts, in a job and on the login node: this site's environment and its Python, which does the rest.
# Outside of a job it hands the script to sbatch, or with --dry-run shows what would run; leading --options are sbatch's.
# shellcheck shell=bash

# Slurm runs a copy of the script, whose own place says nothing.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
IMAGE="" VENV="" OVERRIDES=() EVAL_OPTIONS=()
# shellcheck source=slurm/site.example.env
[[ ! -f slurm/site.env ]] || source slurm/site.env
# Only here: a site's modules may use variables that are not set.
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

# Ranks and engines run in the image where the site has one; what talks to Slurm always runs on the host.
export IMAGE
python=${VENV:-$PWD/.venv-gpu}/bin/python
[[ -z $IMAGE ]] || python=${VENV:-$PWD/.venv}/bin/python
if [[ ! -x $python ]]; then
    echo "there is no $python: make setup-gpu, or set VENV in slurm/site.env" >&2
    exit 2
fi

# job train RECIPE [recipe=NAME] [key=value ...]; job eval RUN base|STEP [key=value ...]
job() {
    local kind=$1
    shift
    exec "$python" -m slurm.job "$0" "${options[@]}" -- "$kind" "${OVERRIDES[@]}" -- "$@"
}
