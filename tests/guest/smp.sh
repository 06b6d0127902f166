#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two vCPUs: start, IPIs, atomic operations, changed translations and code (src/smp.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest smp 26 --cpus 2
