#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two vCPUs: start, IPIs, atomic operations, changed translations and code (src/smp.c).
# timeout: 300
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
GUEST_SECONDS=140 run_guest smp 26 --cpus 2
