#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Code that changes while it runs (src/smc.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest smc 33
