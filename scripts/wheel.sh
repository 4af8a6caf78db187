#!/usr/bin/env bash
# Builds the wheel into dist/. Needs what setup.sh sets up (Docker and images not).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

rm -f dist/chorus_agent-*.whl
"$VENV/bin/maturin" build --release --quiet --compatibility linux --out dist
ls dist/chorus_agent-*.whl
