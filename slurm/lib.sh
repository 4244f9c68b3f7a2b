# Sourced by the job scripts: one place for the environment and for starting the ranks.
# shellcheck shell=bash

set -euo pipefail

# Slurm runs a copy of the script from its spool, so the checkout is where sbatch was called.
cd "${SLURM_SUBMIT_DIR:?run this with sbatch, from the checkout}"
if [[ ! -x .venv/bin/warmstart ]]; then
    echo "no .venv in $PWD: install the GPU environment first (README, On a cluster)" >&2
    exit 2
fi

# train RECIPE [key=value ...]: every task of the allocation is one rank.
train() {
    srun --kill-on-bad-exit=1 .venv/bin/warmstart train "$@"
}
