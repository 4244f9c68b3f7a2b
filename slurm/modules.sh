# A site file sources this and ends with `load_modules NAME ...`, so that everything else is set
# even on a machine without modules.
# shellcheck shell=bash

# load_modules NAME ...   If one cannot be loaded, a script ends with exit code 2 and an interactive
# shell goes on. MODULES_HINT says what to do.
load_modules() {
    # Only login shells have the module command. A job script's shell is not one, so it reads the
    # file that a login shell reads.
    # shellcheck source=/dev/null
    shopt -q login_shell || command -v module >/dev/null || source /etc/profile
    if ! command -v module >/dev/null || ! module load "$@"; then
        local hint=${MODULES_HINT:-see module avail, then edit the modules in slurm/site.env}
        echo "slurm/site.env: no modules on $HOSTNAME ($*): $hint" >&2
        case $- in *i*) return 2 ;; *) exit 2 ;; esac
    fi
}
