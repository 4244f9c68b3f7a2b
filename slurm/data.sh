#!/usr/bin/env bash
# [sbatch] slurm/data.sh RECIPE [key=value ...]
# Builds the dataset on CPUs. Without sbatch in front it submits itself, with the site's
# DATA_OPTIONS and no GPUs; with --dry-run it only shows what would run. A build that the time limit
# cuts off starts from the beginning.
#SBATCH --job-name=warmstart-data
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=4:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# A job runs a copy of this script; then the checkout is where sbatch was called.
lib=$(dirname "$(realpath "$0")")/lib.sh
[[ -f $lib ]] || lib=${SLURM_SUBMIT_DIR:-.}/slurm/lib.sh
# shellcheck source=slurm/lib.sh
source "$lib" || {
    echo "run sbatch in the checkout, not in $PWD" >&2
    exit 2
}
job data "$@"
