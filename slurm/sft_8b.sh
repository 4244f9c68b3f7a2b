#!/usr/bin/env bash
# sbatch slurm/sft_8b.sh [key=value ...]
#SBATCH --job-name=sft_8b
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
source "$SLURM_SUBMIT_DIR/slurm/lib.sh"
train sft_8b "$@"
