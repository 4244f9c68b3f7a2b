#!/usr/bin/env bash
# Train, with as many requeues as needed; the second line checks first, with --dry-run it only
# shows what would run:
#     sbatch slurm/sft_8b.sh [recipe=NAME|PATH] [key=value ...]
#     slurm/sft_8b.sh [--dry-run] [--nodes=N] [recipe=NAME|PATH] [key=value ...]
#SBATCH --job-name=sft_8b
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@600
# A job runs a copy of this script; then the checkout is where sbatch was called.
lib=$(dirname "$(realpath "$0")")/lib.sh
[[ -f $lib ]] || lib=${SLURM_SUBMIT_DIR:-.}/slurm/lib.sh
# shellcheck source=slurm/lib.sh
source "$lib" || {
    echo "run sbatch in the checkout, not in $PWD" >&2
    exit 2
}
job train sft_8b "$@"
