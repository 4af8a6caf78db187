#!/bin/sh
# Every file below "Bücher & Hefte" names its size in millimetres.
set -eu
find 'Bücher & Hefte' -type f -exec grep -L '^[0-9][0-9]* mm$' {} + > wrong.txt || true
if test -s wrong.txt; then cat wrong.txt; rm wrong.txt; exit 1; fi
rm wrong.txt
test "$(find 'Bücher & Hefte' -type f | wc -l)" -eq 2
