#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs in supervisor mode stop after the same number of instructions in the emulator and translated, with the same
# state: also a test of run()'s budget.
# timeout: 600
. "$(dirname "$0")/../lib.sh"
diff_bound 60000
"$BUILD/tests/diff/diff" lockstep
