#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two to six instructions at once, with branches and loops: live flags, displaced registers, chained blocks and side
# exits give what the bare CPU gives.
# timeout: 600
. "$(dirname "$0")/../lib.sh"
diff_bound 300000
"$BUILD/tests/diff/diff" seq
