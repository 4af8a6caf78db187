#!/usr/bin/env bash
# Builds the wheel into dist/, for Python 3.11 and later on Linux with GLIBC (below) or later. Needs what setup.sh sets up,
# Docker and images not. Two builds of one commit are equal byte for byte, whatever folders they are made in.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$ROOT/scripts/environments.sh"
cd "$ROOT"
# A folder of its own: in the shared one this build and those of development would wait for each other, and each compile
# anew what the other's flags changed.
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/wheel

# The oldest that Rust's standard library runs on. zig links against it, whatever the machine here has.
GLIBC=2_17
# It has 15 MB unpacked and compresses to less than half. What makes it larger than this is to be looked at.
WHEEL_MAX_BYTES=10000000
# The time of the files in the wheel, 1980: the oldest that a ZIP archive knows. That of the commit would do as well but for
# crates with files in them (age), whose macro writes it into the code, where it stays until they are compiled anew.
FILES_EPOCH=315532800

# zig_on_path: zig from PyPI, once for all checkouts; it takes 400 MB.
zig_on_path() {
  local version folder new
  version=$(sed -n 's/^ziglang==//p' constraints.txt)
  folder=$CACHE/zig-$version
  if [ ! -d "$folder" ]; then
    say "fetching zig $version, which links against an older glibc"
    mkdir -p "$CACHE"
    new=$(mktemp -d "$CACHE/zig.XXXXXX")
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$new" "ziglang==$version"
    mv -T "$new" "$folder" 2>/dev/null || rm -rf "$new"
  fi
  PATH=$PATH:$folder/ziglang
}

# without_paths: folders of this machine stay out of the binary's messages. That of the checkout is in none, and named here
# would have every checkout compile all dependencies.
without_paths() {
  local cargo sysroot commit
  cargo=${CARGO_HOME:-$HOME/.cargo}
  sysroot=$(rustc --print sysroot)
  commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
  printf -v CARGO_ENCODED_RUSTFLAGS '%s\x1f%s\x1f%s' \
    "--remap-path-prefix=$cargo/registry/src=/cargo" \
    "--remap-path-prefix=$CARGO_TARGET_DIR=/target" \
    "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
  export CARGO_ENCODED_RUSTFLAGS
}

build() {
  local new
  new=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$new'" EXIT
  zig_on_path
  without_paths
  # Beside the code, what it is made of and under which licences.
  "$VENV/bin/python" scripts/notices.py LICENSE.crates
  "$(bills)/bin/python" scripts/sbom.py crates >"$new/chorus_core.cdx.json"
  # What a compilation begins with must not be what another one left behind.
  SOURCE_DATE_EPOCH=$FILES_EPOCH CARGO_INCREMENTAL=0 "$(builder)/bin/maturin" build --release --locked --quiet \
    --zig --compatibility "manylinux_$GLIBC" --sbom-include "$new/chorus_core.cdx.json" --out "$new" >&2
  mkdir -p dist
  rm -f dist/chorus_agent-*.whl
  mv "$new"/chorus_agent-*.whl dist/
}

mkdir -p "$CACHE"
exec 9>"$CACHE/wheel.lock"
flock 9
key=$(hash_of pyproject.toml constraints.txt Cargo.toml Cargo.lock LICENSE rust python scripts/{crates.py,notices.py,sbom.py,wheel.sh})-$CHORUS_BUILD_COMMIT
if ! ls dist/chorus_agent-*.whl >/dev/null 2>&1 || [ "$(cat dist/.wheel-key 2>/dev/null)" != "$key" ]; then
  if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then
    say "with changes that are not committed; the wheel will name commit $CHORUS_BUILD_COMMIT all the same"
  fi
  build
  printf '%s' "$key" >dist/.wheel-key
fi
wheel=$(ls dist/chorus_agent-*.whl)
size=$(stat -c %s "$wheel")
[ "$size" -le "$WHEEL_MAX_BYTES" ] || die "$wheel has $size bytes, more than the $WHEEL_MAX_BYTES of scripts/wheel.sh"
say "$wheel: $((size / 1000)) kB of at most $((WHEEL_MAX_BYTES / 1000))"
echo "$wheel"
