#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file has the form that clang-format and .clang-format give it; `make format` gives it to them.

cd "$(dirname "$0")/.." || exit 1
command -v clang-format >/dev/null 2>&1 || {
    echo "SKIP: clang-format is not installed"
    exit 77
}
# shellcheck disable=SC2046 # a list of names without spaces
clang-format --dry-run --Werror $(find src include tests fuzz bench -name '*.[ch]' 2>/dev/null) 2>&1 |
    grep -E '^[^ :]+:[0-9]+:[0-9]+: (error|warning):' | cut -d: -f1 | sort | uniq -c | awk '{ print $2 ": " $1 " places"; bad = 1 } END { exit bad }'
