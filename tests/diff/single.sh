#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every instruction alone, by class: the emulator and both kinds of translated code give what the bare CPU gives, results
# and faults. CICADA_DIFF_SECONDS a class, CICADA_DIFF_SEED chooses the cases.
# timeout: 600
. "$(dirname "$0")/../lib.sh"
diff_bound 200000
"$BUILD/tests/diff/diff" int flow string x87 mmx sse avx priv
