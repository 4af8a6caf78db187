#!/usr/bin/env bash
# Builds the agent's image `chorus-agent:latest` and that of the filtering proxy, `chorus-docker-proxy:latest`, with no
# image registry at hand: base images from Debian's packages, wheel from this host, Python packages from pip's own index.
# `scripts/image.sh agent` or `proxy` builds one of them. What is there already, made of the same things, is left as it
# is. `BASE=debian:bookworm-slim scripts/image.sh` takes another base (with python3 and python3-venv); plain
# `docker build .` builds everything inside.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

TAG=${TAG:-chorus-agent:latest}
PROXY_TAG=${PROXY_TAG:-chorus-docker-proxy:latest}
# The interpreter of the base image; wheels are fetched for it, not for the host's.
BASE_PYTHON=${BASE_PYTHON:-3.11}
SUITE=bookworm
LABEL=chorus.recipe

recipe_of() { docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$1" 2>/dev/null || true; }
id_of() { docker image inspect --format '{{.Id}}' "$1"; }
keyed() { sha256sum | cut -c1-16; }

# debian NAME PACKAGES: a base image of Debian's essential packages and these; its tag says what it is made of.
debian() {
  local image
  image=$1:$SUITE-$(printf '%s' "$SUITE $2" | keyed)
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    have mmdebstrap || die "mmdebstrap is missing: apt-get install mmdebstrap, or set BASE to an image that is here"
    say "making $image from Debian's packages"
    # Documentation and translations are of no use in a container.
    mmdebstrap --quiet --variant=essential --include="$2" --dpkgopt=force-unsafe-io \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      --aptopt='Apt::Install-Recommends "false"' "$SUITE" - | docker import - "$image" >/dev/null
  fi
  echo "$image"
}

# image TAG RECIPE CONTEXT [ARGUMENTS…]: builds without a word when it goes well, and without network on a base of this
# script's, which has all that is needed.
image() {
  local tag=$1 recipe=$2 context=$3 network=none source log
  shift 3
  [ -z "${BASE:-}${PROXY_BASE:-}" ] || network=default
  say "building $tag"
  set -- --label "$LABEL=$recipe" --label "org.opencontainers.image.created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
    --build-arg "CHORUS_BUILD_COMMIT=$CHORUS_BUILD_COMMIT" "$@"
  # Where the source is, if that is an address for others, without a name or password in it.
  source=$({ git remote get-url origin 2>/dev/null || true; } | sed -n 's#^https://\([^/@]*@\)\{0,1\}#https://#p')
  [ -z "$source" ] || set -- --label "org.opencontainers.image.source=$source" "$@"
  log=$(docker build --network $network "$@" -t "$tag" "$context" 2>&1) || { printf '%s\n' "$log" >&2; return 1; }
}

agent() {
  local base recipe context
  base=${BASE:-$(debian chorus-image-base python3,python3-venv,ca-certificates,sysvinit-utils)}
  recipe=$( (hash_of Dockerfile pyproject.toml constraints.txt Cargo.toml Cargo.lock rust python scripts/{image,packages,wheel}.sh &&
    echo "$CHORUS_BUILD_COMMIT $BASE_PYTHON $(id_of "$base")") | keyed)
  if [ "$(recipe_of "$TAG")" = "$recipe" ]; then
    say "$TAG is up to date ($recipe)"
    return
  fi
  context=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$context'" EXIT
  mkdir "$context/dist"
  cp Dockerfile constraints.txt "$context/"
  cp "$("$ROOT/scripts/wheel.sh")" "$context/dist/"
  cp "$("$ROOT/scripts/packages.sh" "$BASE_PYTHON")"/* "$context/dist/"
  image "$TAG" "$recipe" "$context" --build-arg "BUILD_BASE=$base" --build-arg "BASE=$base"
}

proxy() {
  local base recipe
  base=${PROXY_BASE:-$(debian chorus-proxy-base nginx,libnginx-mod-http-js)}
  recipe=$( (hash_of deploy/docker-proxy && id_of "$base") | keyed)
  if [ "$(recipe_of "$PROXY_TAG")" = "$recipe" ]; then
    say "$PROXY_TAG is up to date ($recipe)"
    return
  fi
  image "$PROXY_TAG" "$recipe" deploy/docker-proxy --build-arg "BASE=$base"
}

"$ROOT/scripts/docker.sh"
[ $# -gt 0 ] || set -- agent proxy
for which in "$@"; do
  case $which in
    agent) agent; made=$TAG ;;
    proxy) proxy; made=$PROXY_TAG ;;
    *) die "$which is no image of this script: agent, proxy, or nothing for both" ;;
  esac
  say "$made: $(($(docker image inspect --format '{{.Size}}' "$made") / 1000000)) MB"
  [ "$which" = proxy ] || docker run --rm "$made" --version
done
