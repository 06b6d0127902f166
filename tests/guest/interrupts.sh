#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Interrupt shadows, NMI, HLT, timers and interrupt controllers (src/interrupts.c).
# timeout: 300
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest interrupts 41
