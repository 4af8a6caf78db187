#!/usr/bin/env bash
# Sees to it that a Docker daemon answers: starts one, as root, when none does and none is asked for elsewhere.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

START_TIMEOUT_S=60

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

have docker || die "docker is missing: install docker.io (Debian) or Docker Engine"
answers && exit 0
[ -z "${DOCKER_HOST:-}" ] || die "no Docker daemon answers at DOCKER_HOST=$DOCKER_HOST"
if [ "$(id -u)" != 0 ] || ! have dockerd; then
  die "no Docker daemon answers: start it (sudo systemctl start docker), and let this user reach its socket"
fi
mkdir -p "$CACHE"
say "starting dockerd (its log: $CACHE/dockerd.log)"
setsid dockerd >"$CACHE/dockerd.log" 2>&1 </dev/null &
for _ in $(seq $((START_TIMEOUT_S * 5))); do
  answers && exit 0
  sleep 0.2
done
tail -n 20 "$CACHE/dockerd.log" >&2
die "dockerd did not answer within $START_TIMEOUT_S s"
