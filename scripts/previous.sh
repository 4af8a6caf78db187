#!/usr/bin/env bash
# Builds an earlier commit of this repository and prints the Python that it is installed for.
# `scripts/previous.sh [COMMIT]`; without one, that of deploy/previous-version. What was built is kept by its
# commit.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

commit=$(git rev-parse --verify --quiet "${1:-$(grep -v '^#' deploy/previous-version)}^{commit}") ||
  die "this clone does not have the commit ${1:-of deploy/previous-version}: git fetch --unshallow"
made=$CACHE/previous/$commit
mkdir -p "$CACHE/previous"
# Two tests may ask at once.
exec 9>"$CACHE/previous/lock"
flock 9
if [ ! -x "$made/venv/bin/chorus-agent" ]; then
  say "building $commit"
  rm -rf "$made"
  mkdir -p "$made/source"
  git archive "$commit" | tar -x -C "$made/source"
  (
    cd "$made/source"
    export CHORUS_BUILD_COMMIT CHORUS_BUILD_DATE
    CHORUS_BUILD_COMMIT=$(git -C "$ROOT" rev-parse --short "$commit")
    CHORUS_BUILD_DATE=$(git -C "$ROOT" log -1 --date=format:%Y-%m-%d --format=%cd "$commit")
    "$VENV/bin/maturin" build --release --quiet --compatibility linux --out "$made"
    "$VENV/bin/python" -m venv "$made/venv"
    "$made/venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt \
      "$made"/chorus_agent-*.whl
  ) >&2
  rm -rf "$made/source"
fi
echo "$made/venv/bin/python"
