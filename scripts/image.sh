#!/usr/bin/env bash
# Builds the agent's image `chorus-agent:latest`, with no image registry at hand: base image from Debian's packages,
# wheel from this host, Python packages from pip's own index. `BASE=debian:bookworm-slim scripts/image.sh` takes another
# base; plain `docker build .` builds everything inside.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

TAG=${TAG:-chorus-agent:latest}
# The interpreter of the base image; wheels are fetched for it, not for the host's.
BASE_PYTHON=${BASE_PYTHON:-3.11}

"$ROOT/scripts/docker.sh"
if [ -z "${BASE:-}" ]; then
  BASE=chorus-image-base:bookworm
  if ! docker image inspect "$BASE" >/dev/null 2>&1; then
    have mmdebstrap || die "mmdebstrap is missing (or set BASE to an image with python3 and python3-venv)"
    say "making $BASE from Debian's packages"
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,sysvinit-utils bookworm - |
      docker import - "$BASE" >/dev/null
  fi
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
"$ROOT/scripts/wheel.sh" >/dev/null
mkdir -p "$context/dist"
cp Dockerfile constraints.txt "$context/"
cp dist/chorus_agent-*.whl "$context/dist/"
say "fetching Python packages for the image"
"$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
  --python-version "$BASE_PYTHON" --implementation cp \
  --platform "manylinux_2_28_$(uname -m)" --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
  -c constraints.txt -d "$context/dist" $("$VENV/bin/python" - <<'PY'
import tomllib
print(" ".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))
PY
)
say "building $TAG on $BASE"
docker build --quiet --build-arg "BUILD_BASE=$BASE" --build-arg "BASE=$BASE" -t "$TAG" "$context" >/dev/null
docker run --rm "$TAG" --version
