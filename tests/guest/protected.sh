#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 32-bit protected mode: segments, gates, tasks, 16-bit code, virtual-8086 mode (src/protected.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest protected 91
