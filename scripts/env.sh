# Common to the scripts: where things are, and a few words. Sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${CHORUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chorus}
# Outside the checkout, so that a fresh clone builds in seconds where one was built before.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
VENV=${CHORUS_VENV:-$ROOT/.venv}
STAMPS=$VENV/.stamps

say() { printf '== %s\n' "$*" >&2; }
die() { printf '❌ %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# debian PACKAGE…: installs them, as root; false where that is not possible.
debian() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  say "installing $*"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# done_before NAME KEY: whether step NAME was last done with the same KEY.
done_before() { [ "$(cat "$STAMPS/$1" 2>/dev/null)" = "$2" ]; }
mark_done() { mkdir -p "$STAMPS" && printf '%s' "$2" >"$STAMPS/$1"; }

# hash_of PATH…: one hash over the names and contents of files, and of files below folders.
hash_of() {
  (cd "$ROOT" && find "$@" -type f ! -name '*.pyc' ! -name '*.so' -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

# What the build is told about itself; read by the core at compile time. All of it follows from the commit, so that one
# commit always makes one wheel: also the number of characters, which git would choose by the size of the clone.
export CHORUS_BUILD_COMMIT CHORUS_BUILD_DATE SOURCE_DATE_EPOCH
CHORUS_BUILD_COMMIT=$(git -C "$ROOT" rev-parse --short=10 HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || date +%s)}
CHORUS_BUILD_DATE=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)

# raft-rs generates its messages with protoc; without the system's, setup.sh puts one into the virtual environment.
PATH=$PATH:$VENV/bin
