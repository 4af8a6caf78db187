#!/usr/bin/env bash
# Makes a release into dist/ from a checkout without changes: the wheel, both images, a bill of materials (CycloneDX) for
# each of them, the licences of the Python packages, and SHA256SUMS over all. `make release`
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$ROOT/scripts/environments.sh"
cd "$ROOT"

[ -z "$(git status --porcelain)" ] || die "there are changes that are not committed; a release is made of a commit"
"$ROOT/scripts/audit.sh" >/dev/null
rm -rf dist
wheel=$("$ROOT/scripts/wheel.sh")
name=$(basename "$wheel" .whl)
version=$(cut -d- -f2 <<<"$name")
tools=$(tools) shipped=$(shipped)

say "bills of materials"
"$tools/bin/python" scripts/sbom.py crates >"dist/$name.crates.cdx.json"
"$tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible --output-file \
  "dist/$name.python.cdx.json" "$shipped/bin/python"
"$tools/bin/pip-licenses" --python "$shipped/bin/python" --format json --with-urls --output-file "dist/$name.python-licences.json" >/dev/null

# image NAME TAG: its bill of materials, and its archive.
image() {
  say "$2: bill of materials, archive"
  docker run --rm --network none --entrypoint dpkg-query "$2" -W -f '${Package} ${Version} ${Architecture}\n' |
    "$tools/bin/python" scripts/sbom.py debian "$1" "$version" >"dist/$1-$version.debian.cdx.json"
  docker save "$2" | gzip -n >"dist/$1-$version.tar.gz"
}

export TAG=${TAG:-chorus-agent:$version} PROXY_TAG=${PROXY_TAG:-chorus-docker-proxy:$version}
"$ROOT/scripts/image.sh"
image chorus-agent "$TAG"
image chorus-docker-proxy "$PROXY_TAG"

(cd dist && sha256sum -- * >SHA256SUMS)
say "made in dist/:"
(cd dist && wc -c -- *)
