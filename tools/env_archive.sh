#!/usr/bin/env bash
# Writes the archive of an environment that LOCAL_ENV (slurm/site.env) has every node unpack, beside
# the environment: one file to read instead of tens of thousands (make env-archive).
#     tools/env_archive.sh [VENV]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${1:-.venv-gpu}
venv=${venv%/}
if [[ ! -x $venv/bin/python ]]; then
    echo "env-archive: $venv is no environment: make setup-gpu, or make env-archive VENV=DIR" >&2
    exit 1
fi
# Compiled here once instead of by every node. Some packages have files for other Pythons.
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null || true
partial=$(mktemp "$venv.tar.XXXXXX")
trap 'rm -f "$partial"' EXIT
# Its name has its hash: an environment that has changed is another copy on the nodes.
hash=$(tar --create --file=- --directory="$venv" . | tee "$partial" | sha256sum)
archive=$venv-${hash:0:12}.tar
mv "$partial" "$archive"
for old in "$venv"-*.tar; do
    [[ ! ${old#"$venv-"} =~ ^[0-9a-f]{12}\.tar$ || $old == "$archive" ]] || rm "$old"
done
echo "env-archive: $archive, $(du --si --apparent-size "$archive" | cut -f1)"
