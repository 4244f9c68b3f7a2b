#!/usr/bin/env bash
# [sbatch] slurm/rl.sh RUN [STEP] [key=value ...]
# GRPO with verl from what `warmstart rl RUN STEP` prepared; resumes after a time limit.
#SBATCH --job-name=warmstart-rl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --export=NONE
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@900
# A job runs a copy of this script; then the checkout is where sbatch was called.
lib=$(dirname "$(realpath "$0")")/lib.sh
[[ -f $lib ]] || lib=${SLURM_SUBMIT_DIR:-.}/slurm/lib.sh
# shellcheck source=slurm/lib.sh
source "$lib" || {
    echo "run sbatch in the checkout, not in $PWD" >&2
    exit 2
}
job rl "$@"
