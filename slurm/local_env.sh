#!/usr/bin/env bash
# One srun task per node of a job with LOCAL_ENV: unpacks an environment's archive on the node's own
# disk, unless it is there. It stays there for the next job.
#     slurm/local_env.sh ARCHIVE FOLDER
# Exit code 3 if the node cannot have it.
set -euo pipefail
umask 077
archive=$1 folder=$2

refuse() {
    echo "warmstart: ${SLURMD_NODENAME:-$HOSTNAME}: $*" >&2
    exit 3
}

# The number of files in a copy, without those that Python adds as it runs.
count() { find "$1" ! -path '*/__pycache__*' | wc -l; }

# A service that removes old files from the disk may have removed some of a copy.
is_whole() { [[ -f $folder/.files && $(count "$folder") -ge $(<"$folder/.files") ]]; }

# Everyone may write to /tmp: a copy that someone else made is not run.
is_mine() { [[ -d $folder && ! -L $folder && -O $folder ]]; }

if [[ -e $folder ]]; then
    is_mine || refuse "$folder is not yours: LOCAL_ENV=DIR on another disk in slurm/site.env"
    ! is_whole || exit 0
fi
parent=$(dirname "$folder") name=$(basename "$folder")
mkdir -p "$parent" 2>/dev/null || refuse "$parent cannot be made: see LOCAL_ENV in slurm/site.env"
# Remains of tasks that were killed hours ago.
find "$parent" -maxdepth 1 -user "$(id -u)" -name "$name.partial.*" -mmin +120 -exec rm -rf {} +
partial=$(mktemp -d "$folder.partial.XXXXXX") || refuse "no folder can be made in $parent"
trap 'rm -rf "$partial" "$partial".*' EXIT
sha256sum <"$archive" >"$partial.sum" &
tar --extract --no-same-owner --file "$archive" --directory "$partial" ||
    refuse "$archive cannot be unpacked in $parent ($(df -h --output=avail "$parent" | tail -n 1 |
        tr -d ' ') free): LOCAL_ENV=DIR on a larger disk in slurm/site.env"
wait $!
# Its name ends with its hash.
hash=${archive##*-}
[[ $(<"$partial.sum") == "${hash%.tar}"* ]] || refuse "$archive is damaged: make env-archive"
count "$partial" >"$partial/.files"
[[ ! -e $folder ]] || is_whole || mv "$folder" "$partial.damaged" 2>/dev/null || true
# Another job's task may be first.
mv --no-target-directory "$partial" "$folder" 2>/dev/null || { is_mine && is_whole; } ||
    refuse "$partial cannot be renamed to $folder"
