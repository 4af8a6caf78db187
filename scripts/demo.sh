#!/usr/bin/env bash
# The main job on real input: three agents run the test suites of published packages (scripts/demo.py).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
exec "$VENV/bin/python" scripts/demo.py "$@"
