#!/usr/bin/env bash
# Fetches the wheels of all packages that the agent needs for one version of Python, once for one set of them, and prints
# the folder: for machines and image builds without a package index. `scripts/packages.sh 3.13`
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

python=${1:-3.11}
machine=$(uname -m)
key=$( (cat pyproject.toml constraints.txt && echo "$machine") | sha256sum | cut -c1-16)
folder=$CACHE/packages-$python/$key
if [ ! -d "$folder" ]; then
  say "fetching Python packages for Python $python"
  mapfile -t wanted < <("$VENV/bin/python" -c '
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))')
  mkdir -p "$CACHE/packages-$python"
  # Those of other sets, once no checkout has made one for a week.
  find "$CACHE/packages-$python" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf {} +
  new=$(mktemp -d "$CACHE/packages-$python/new.XXXXXX")
  "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
    --python-version "$python" --implementation cp \
    --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" --platform "manylinux_2_17_$machine" \
    -c constraints.txt -d "$new" "${wanted[@]}" >&2
  chmod 755 "$new"
  mv -T "$new" "$folder" 2>/dev/null || rm -rf "$new"
fi
echo "$folder"
