#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone, so no file depends on what another happened to include before it.

cd "$(dirname "$0")/.." || exit 1
status=0
for header in $(find src include -name '*.h' | LC_ALL=C sort); do
    ${CC:-cc} -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -Wno-unused-function -Isrc -Iinclude \
        -fsyntax-only -x c -include "$header" /dev/null || {
        echo "$header does not compile alone"
        status=1
    }
done
exit $status
