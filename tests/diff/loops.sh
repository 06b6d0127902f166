#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Loops over memory, which the translator runs without checks where it can: the same results and faults as on the bare
# CPU.
# timeout: 600
. "$(dirname "$0")/../lib.sh"
diff_bound 60000
"$BUILD/tests/diff/diff" loops
