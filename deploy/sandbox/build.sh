#!/bin/sh
# Builds the sandbox images: `chorusctl images build` of this checkout, or of the machine.
#
#   deploy/sandbox/build.sh [LANGUAGE]... [--suite NAME] [--mirror URL]
#
# What an image has stands in python/chorus/ctl/recipes.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
chorusctl=${CHORUS_VENV:-$root/.venv}/bin/chorusctl
[ -x "$chorusctl" ] || chorusctl=chorusctl
command -v "$chorusctl" >/dev/null || { echo "error: chorusctl is missing: make setup, or pip install chorus-agent" >&2; exit 1; }
exec "$chorusctl" images build "$@"
