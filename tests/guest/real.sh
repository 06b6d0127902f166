#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Real mode; 32-bit paging with two levels and PAE (src/real.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest real 41
