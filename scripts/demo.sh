#!/usr/bin/env bash
# Shows the agent at work: a mesh of three on this machine, one task through it, what the mesh says of itself.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
PATH=$VENV/bin:$PATH

step() { printf '\n$ %s\n' "$*"; "$@"; }

trap 'chorusctl down --purge >/dev/null 2>&1 || true' EXIT
step chorusctl up -n 3 --detach
step chorusctl members
step chorusctl run --language python -- python3 -c 'print("hello from a sandbox")'
step chorusctl tasks
step chorusctl decisions
step chorusctl down --purge
trap - EXIT
