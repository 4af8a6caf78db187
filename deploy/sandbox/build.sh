#!/bin/sh
# Builds the sandbox images from Debian's packages alone: no image registry is asked. Repeating it costs nothing.
#
#   deploy/sandbox/build.sh [NAME]...        base, python-dev, node-dev, rust-dev, go-dev, java-dev, cpp-dev
#
# Without a name it builds base and python-dev. What an image has stands in NAME.packages; each has what base has.
# NAME.hook, where there is one, is run by a shell in the root file system.
#
# SANDBOX_SUITE (bookworm), SANDBOX_MIRROR (mmdebstrap's own choice), SANDBOX_PREFIX (anthonyrawlins/chorus).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
suite=${SANDBOX_SUITE:-bookworm}
mirror=${SANDBOX_MIRROR:-}
prefix=${SANDBOX_PREFIX:-anthonyrawlins/chorus}
label=chorus.recipe

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
# packages_of NAME: what its file names, with commas between.
packages_of() { grep -v '^#' "$here/$1.packages" | tr '\n' ',' | sed 's/,$//'; }
recipes() { (cd "$here" && printf '%s ' *.packages | sed 's/\.packages//g'); }
hash_of() { sha256sum | cut -c1-16; }
recipe_of() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true; }

command -v docker >/dev/null || fail "docker is not installed: apt-get install docker.io"
docker version >/dev/null 2>&1 || fail "the Docker daemon does not answer; is it running, and may you use it?"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# alone: waits until nobody else builds an image here.
alone() {
    if command -v flock >/dev/null; then
        exec 9>"${TMPDIR:-/tmp}/chorus-sandbox-build.lock"
        flock 9
    fi
}
is_built() {
    [ "$(recipe_of "$image")" = "$recipe" ] && say "$image is up to date ($recipe)"
}

# build NAME PACKAGES: a root file system from packages, imported, then the user and the folders on top.
build() {
    name=$1 packages=$2
    image=$prefix-$name:latest
    hook=
    [ ! -f "$here/$name.hook" ] || hook=$(cat "$here/$name.hook")
    recipe=$({ printf '%s\n%s\n%s\n' "$suite" "$mirror" "$packages"; cat "$here/Dockerfile"; printf '%s' "$hook"; } | hash_of)
    if is_built; then return; fi
    alone
    if is_built; then return; fi
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: apt-get install mmdebstrap"
    say "$image: making a root file system of Debian $suite with $packages"
    root=chorus-sandbox-root:$name-$recipe
    # Documentation and translations are of no use to a task. Java's packages link into the folder of manual pages.
    SANDBOX_HOOK=$hook mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --aptopt='Apt::Install-Recommends "false"' --essential-hook='mkdir -p "$1/usr/share/man/man1"' \
        ${hook:+--customize-hook='chroot "$1" sh -euc "$SANDBOX_HOOK"'} \
        "$suite" "$work/root.tar" ${mirror:+"$mirror"}
    docker import "$work/root.tar" "$root" >/dev/null
    rm "$work/root.tar"
    say "$image: adding the user and the folders"
    docker build --quiet --network none --build-arg "ROOT=$root" --label "$label=$recipe" \
        --tag "$image" "$here" >/dev/null
    docker image rm "$root" >/dev/null 2>&1 || true
    say "$image is built ($recipe)"
}

[ $# -gt 0 ] || set -- base python-dev
for wanted in "$@"; do
    case $wanted in
    base) build base "$(packages_of base)" ;;
    *[!a-z-]*) fail "no recipe for '$wanted'; there are: $(recipes)" ;;
    *)
        [ -f "$here/$wanted.packages" ] || fail "no recipe for '$wanted'; there are: $(recipes)"
        build "$wanted" "$(packages_of base),$(packages_of "$wanted")"
        ;;
    esac
done
