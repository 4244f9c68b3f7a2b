# Sourced by the job scripts: one place for the environment and for starting the ranks.
# shellcheck shell=bash

set -euo pipefail

# Slurm runs a copy of the script from its spool, so the checkout is where sbatch was called.
cd "$SLURM_SUBMIT_DIR"
if [[ ! -x .venv-gpu/bin/warmstart ]]; then
    echo "no .venv-gpu in $PWD: make setup-gpu" >&2
    exit 2
fi

# train RECIPE [key=value ...]: every task of the allocation is one rank.
train() {
    # srun does not inherit sbatch's --cpus-per-task.
    srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 .venv-gpu/bin/warmstart train "$@"
}
