#!/bin/sh
# Builds the sandbox images from Debian's packages alone: no image registry is asked. Repeating it costs nothing.
#
#   deploy/sandbox/build.sh [base] [python-dev]        (both when none is named)
#
# SANDBOX_SUITE (bookworm), SANDBOX_MIRROR (mmdebstrap's own choice), SANDBOX_PREFIX (anthonyrawlins/chorus).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
suite=${SANDBOX_SUITE:-bookworm}
mirror=${SANDBOX_MIRROR:-}
prefix=${SANDBOX_PREFIX:-anthonyrawlins/chorus}
label=chorus.recipe

base_packages=$(grep -v '^#' "$here/base.packages" | tr '\n' ',' | sed 's/,$//')
python_packages=$(grep -v '^#' "$here/python-dev.packages" | tr '\n' ',' | sed 's/,$//')

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
hash_of() { sha256sum | cut -c1-16; }
recipe_of() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true; }

command -v docker >/dev/null || fail "docker is not installed: apt-get install docker.io"
docker version >/dev/null 2>&1 || fail "the Docker daemon does not answer; is it running, and may you use it?"

# build NAME PACKAGES: a root file system from packages, imported, then the user and the folders on top.
build() {
    name=$1 packages=$2
    image=$prefix-$name:latest
    recipe=$({ printf '%s\n%s\n%s\n' "$suite" "$mirror" "$packages"; cat "$here/Dockerfile"; } | hash_of)
    if [ "$(recipe_of "$image")" = "$recipe" ]; then
        say "$image is up to date ($recipe)"
        return
    fi
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: apt-get install mmdebstrap"
    say "$image: making a root file system of Debian $suite with $packages"
    root=chorus-sandbox-root:$name-$recipe
    # Documentation and translations are of no use to a task.
    mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --aptopt='Apt::Install-Recommends "false"' \
        "$suite" - ${mirror:+"$mirror"} | docker import - "$root" >/dev/null
    say "$image: adding the user and the folders"
    docker build --quiet --network none --build-arg "ROOT=$root" --label "$label=$recipe" \
        --tag "$image" "$here" >/dev/null
    docker image rm "$root" >/dev/null 2>&1 || true
    say "$image is built ($recipe)"
}

[ $# -gt 0 ] || set -- base python-dev
for wanted in "$@"; do
    case $wanted in
    base) build base "$base_packages" ;;
    python-dev) build python-dev "$base_packages,$python_packages" ;;
    *) fail "no recipe for '$wanted'; there are: base python-dev" ;;
    esac
done
