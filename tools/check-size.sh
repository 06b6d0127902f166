#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sizes of docs/ARCHITECTURE.md. A C file of more than 1000 lines says why in its first 40 lines (the word "lines" or
# "long" in a comment); a function of more than 100 lines starts with a comment that holds the word "dispatch" or
# "table", or it is an error. Files over 600 lines are listed for a reviewer, without failing. Each file starts with
# its licence and a comment.

cd "$(dirname "$0")/.." || exit 1
status=0
for file in $(find src include tests fuzz bench -name '*.[ch]' 2>/dev/null | LC_ALL=C sort); do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 1000 ]; then
        head -n 40 "$file" | grep -qiE '\b(lines|long)\b' || {
            echo "$file: $lines lines and no reason at the top"
            status=1
        }
    elif [ "$lines" -gt 600 ]; then
        echo "note: $file: $lines lines"
    fi
    head -n 1 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || {
        echo "$file: no SPDX line"
        status=1
    }
done
# A function's body runs from a line that is '{' or ends in ') {' at the left margin to a '}' at the left margin.
# shellcheck disable=SC2046 # a list of names without spaces
awk '
FNR == 1 { start = 0; note = "" }
/^\/\// || /^ \*/ || /^\/\*/ { note = note $0; next }
start == 0 && /^[A-Za-z_].*[)] [{]$/ || start == 0 && /^[{]$/ { start = FNR; name = $0; head = note }
start && /^}/ {
    if (FNR - start > 100 && head !~ /[Dd]ispatch|[Tt]able/) { printf "%s:%d: function of %d lines: %s\n", FILENAME, start, FNR - start, name; bad = 1 }
    start = 0
    note = ""
}
/^[ \t]*$/ { note = "" }
END { exit bad }
' $(find src -name '*.c' | LC_ALL=C sort) || status=1
exit $status
