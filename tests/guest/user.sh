#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What user mode may not do; control registers and MSRs (src/user.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest user 78
