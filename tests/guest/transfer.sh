#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SYSCALL, SYSRET, SYSENTER, IRET, far branches, call gates, compatibility mode (src/transfer.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest transfer 58
