#!/usr/bin/env bash
# [sbatch] slurm/eval.sh RUN base|STEP|avg-NAME|rl-N [key=value ...]
# Export, rollouts, grades, report; resumes after a time limit.
#SBATCH --job-name=warmstart-eval
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#SBATCH --export=NONE
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
# A job runs a copy of this script; then the checkout is where sbatch was called.
lib=$(dirname "$(realpath "$0")")/lib.sh
[[ -f $lib ]] || lib=${SLURM_SUBMIT_DIR:-.}/slurm/lib.sh
# shellcheck source=slurm/lib.sh
source "$lib" || {
    echo "run sbatch in the checkout, not in $PWD" >&2
    exit 2
}
job eval "$@"
