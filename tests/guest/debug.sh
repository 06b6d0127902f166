#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Breakpoints, watchpoints, single step (src/debug.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest debug 47
