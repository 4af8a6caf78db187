#!/bin/sh
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/from here" "$work/to"
for name in 'a.txt' 'b c.txt' '*.txt' '-n.txt'; do echo "$name" > "$work/from here/$name"; done
sh backup.sh "$work/from here" "$work/to"
for name in 'a.txt' 'b c.txt' '*.txt' '-n.txt'; do test "$(cat "$work/to/$name.bak")" = "$name"; done
mkdir "$work/empty"
sh backup.sh "$work/empty" "$work/to"
test "$(ls "$work/to" | wc -l)" -eq 4
