#!/usr/bin/env bash
# Checks what is shipped: licences and sources of all crates and Python packages, and known vulnerabilities. Those need
# databases from the network: where one is not reached that is said, and fails with AUDIT_STRICT=1.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$ROOT/scripts/environments.sh"
cd "$ROOT"

# As the packages themselves say it; a new word is looked at by a person once. For crates: deny.toml. MPL-2.0 asks for the
# source of the files under it, which the packages' own pages have.
LICENCES=(
  "0BSD" "Apache-2.0" "Apache Software License" "BSD-2-Clause" "BSD-3-Clause" "BSD License" "ISC" "MIT" "MIT License" "MIT-0"
  "PSF-2.0" "MPL-2.0" "Mozilla Public License 2.0 (MPL 2.0)" "BSD-derived (http://www.repoze.org/LICENSE.txt)"
  "Apache-2.0 OR BSD-3-Clause" "Apache-2.0 OR GPL-2.0-or-later" "Apache-2.0 AND BSD-2-Clause"
  "MPL-2.0 AND (Apache-2.0 OR MIT)"
)
# How the database of crates and that of Python packages say that they could not be had.
UNKNOWN=0

unknown() {
  say "NOT CHECKED: $*"
  UNKNOWN=1
}

tools=$(tools) shipped=$(shipped)
deny=$tools/bin/cargo-deny

say "crates: licences, sources, what must not be there"
"$deny" --locked --log-level error check licenses bans sources >&2
"$VENV/bin/python" scripts/crates.py
say "Python packages: licences"
allowed=$(IFS=';' && echo "${LICENCES[*]}")
"$tools/bin/pip-licenses" --python "$shipped/bin/python" --order license --allow-only "$allowed"

say "crates: advisories"
if "$deny" fetch db >/dev/null 2>&1; then
  "$deny" --locked check --hide-inclusion-graph advisories >&2
else
  unknown "advisories of crates; the RustSec database is not reached"
fi
say "Python packages: advisories"
packages=$("$shipped/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if ! told=$("$tools/bin/pip-audit" --strict --progress-spinner off --path "$packages" 2>&1); then
  grep -qi 'found [0-9]* known' <<<"$told" && die "$told"
  unknown "advisories of Python packages; $(tail -n 1 <<<"$told" | cut -c1-200)"
fi
if [ "$UNKNOWN" = 1 ]; then
  [ -z "${AUDIT_STRICT:-}" ] || die "not everything could be checked"
  say "licences and sources are as they may be; advisories were not all checked"
else
  say "nothing is known against what is shipped"
fi
