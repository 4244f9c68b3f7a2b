# Sourced by the job scripts, in a job and on the login node: environment, rendezvous, ranks, and what follows them.
# Outside of a job it hands the script to sbatch, or with --dry-run shows what would run; leading --options are sbatch's.
# shellcheck shell=bash

# Slurm runs a copy of the script, whose own place says nothing.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
IMAGE="" VENV="" OVERRIDES=()
# shellcheck source=slurm/site.example.env
[[ ! -f slurm/site.env ]] || source slurm/site.env
# Only here: a site's modules may use variables that are not set.
set -euo pipefail

options=() dry=""
while [[ -z ${SLURM_JOB_ID:-} && ${1:-} == --* ]]; do
    if [[ $1 == --dry-run ]]; then dry=1; else options+=("$1"); fi
    shift
done
submit=(sbatch "${options[@]}" "slurm/${0##*/}" "$@")
[[ -n ${SLURM_JOB_ID:-}$dry ]] || exec "${submit[@]}"

# Ranks and engines run in the image where the site has one; what talks to Slurm always runs on the host.
host=("${VENV:-$PWD/.venv-gpu}/bin/python")
stack=("${host[@]}")
if [[ -n $IMAGE ]]; then
    host=("${VENV:-$PWD/.venv}/bin/python")
    stack=(apptainer exec --nv --bind "$PWD" --pwd "$PWD" "$IMAGE" python)
fi
if [[ ! -x ${host[0]} ]]; then
    echo "there is no ${host[0]}: make setup-gpu, or set VENV in slurm/site.env" >&2
    exit 2
fi
if [[ -n $dry ]]; then
    # What Slurm would set: from the script's own options, then from the command line's.
    for option in $(sed -n 's/^#SBATCH //p' "$0") "${options[@]}"; do
        case $option in
            --nodes=*) SLURM_JOB_NUM_NODES=${option#*=} ;;
            --ntasks-per-node=*) SLURM_NTASKS_PER_NODE=${option#*=} ;;
            --cpus-per-task=*) SLURM_CPUS_PER_TASK=${option#*=} ;;
            --signal=*) signal=${option#*@} ;;
        esac
    done
fi
# After --export=NONE steps would start with an empty environment too.
export SLURM_EXPORT_ENV=ALL OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK" PYTHONUNBUFFERED=1

# train RECIPE [recipe=NAME] [key=value ...]: every task of the allocation is one rank; %a is the array's index.
train() {
    local recipe=$1 place port run address srun preflight ranks watch code=0
    shift
    if [[ ${1:-} == recipe=* ]]; then
        recipe=${1#recipe=}
        shift
    fi
    set -- "${OVERRIDES[@]}" "${@//\%a/${SLURM_ARRAY_TASK_ID:-}}"
    place=$("${host[@]}" -m slurm.start "$recipe" "$@")
    read -r port run <<<"$place"
    # A job's script runs on its first node, where rank 0 is.
    address=FIRST_NODE
    [[ -n $dry ]] || address=$(hostname)
    # srun does not inherit sbatch's --cpus-per-task.
    srun=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node="$SLURM_NTASKS_PER_NODE"
        --cpus-per-task="$SLURM_CPUS_PER_TASK" --export="ALL,MASTER_ADDR=$address,MASTER_PORT=$port"
        --wait=60) # tasks end together; one whose node's daemon is gone would be waited for without end
    # The first task alone answers for all of them, whose own codes then matter no more.
    preflight=("${srun[@]}" --kill-on-bad-exit=0 "${stack[@]}" -m warmstart doctor "$recipe" "$@")
    ranks=("${srun[@]}" --kill-on-bad-exit=1 "${stack[@]}" -m slurm.rank "$run" "$recipe" "$@")
    if [[ -n $dry ]]; then
        show "${submit[@]}"
        show "${preflight[@]}"
        show "${ranks[@]}"
        "${host[@]}" -m slurm.forecast "$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE))" "$signal" "$recipe" "$@"
        return
    fi
    supervise "${preflight[@]}" || code=$?
    if ((code == 0)); then
        "${host[@]}" -m slurm.watch "$run" &
        watch=$!
        supervise "${ranks[@]}" || code=$?
        kill "$watch" 2>/dev/null || true
    fi
    "${host[@]}" -m slurm.requeue "$run" "$code" || exit
    wait "$watch" || true
    "${host[@]}" -m slurm.watch --once "$run" || true
}

# evaluate RUN base|STEP [key=value ...]: rollouts, grades and metrics of one model, then the report.
evaluate() {
    local run=$1 label=$2 code=0 evaluation
    shift 2
    evaluation=("${stack[@]}" -m warmstart eval "$run" "$label" "$@")
    if [[ -n $dry ]]; then
        show "${submit[@]}"
        show "${evaluation[@]}"
        return
    fi
    if [[ $label != base ]]; then
        "${stack[@]}" -m warmstart export "$run" "$label"
    fi
    # One node: the command starts a Ray of its own there.
    supervise "${evaluation[@]}" || code=$?
    "${host[@]}" -m slurm.requeue "$run" "$code" "$label" || exit
    "${stack[@]}" -m warmstart report "$run"
}

# supervise COMMAND ...: waits for it whatever signals this shell gets; a request to stop is passed on as USR1, since
# srun answers TERM by killing the ranks. From its end on this shell hears no such request.
supervise() {
    local child="" code=0
    trap '[[ -z $child ]] || kill -USR1 "$child" 2>/dev/null || true' USR1 TERM
    "$@" &
    child=$!
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code=$?
    done
    trap '' USR1 TERM
    return "$code"
}

# show COMMAND ...: prints it as a shell would read it, sbatch with the site's variables before it.
show() {
    local name line=""
    for name in $([[ $1 != sbatch ]] || compgen -e SBATCH_); do
        line+="$name=${!name} "
    done
    printf '%s' "$line"
    printf -v line '%q ' "$@"
    echo "${line//\\,/,}"
}
