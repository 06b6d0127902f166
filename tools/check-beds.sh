#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/BEDS.md: every guest names its beds, every row of the table is about a case that exists, once, on a bed of its guest.
set -eu
cd "$(dirname "$0")/.."
bad=0
for source in tests/guest/src/*.c; do
    grep -q "^// beds: xlate" "$source" || [ "$source" = tests/guest/src/debuggee.c ] ||
        { echo "$source: no line '// beds: xlate...'"; bad=1; }
done
rows=$(awk -F' *[|] *' '$2 ~ /^kvm-|^dev$/ && NF > 6 { print $2, $3, $4, $5 }' docs/BEDS.md)
[ "$(echo "$rows" | wc -l)" -gt 20 ] || { echo "docs/BEDS.md: hardly a row"; bad=1; }
echo "$rows" | cut -d' ' -f1-3 | sort | uniq -d | sed 's/^/twice: /' | grep . && bad=1
while read -r bed guest case kind; do
    source=tests/guest/src/$guest.c
    grep -q "^// beds:.* $bed\( \|$\)" "$source" || { echo "$bed $guest: not a bed of $source"; bad=1; }
    # A macro may put a word before the name, and one behind it.
    word=${case#*_}
    grep -qE "[^a-z_0-9](${case}|${word}|${word%_*})[^a-z_0-9]" "$source" || { echo "$guest has no case $case"; bad=1; }
    case $kind in fails | ends | differs) ;; *) echo "$case: what is '$kind'?"; bad=1 ;; esac
done <<END
$rows
END
exit $bad
