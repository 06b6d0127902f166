#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Paging in long mode: every permission, size, flush (src/paging.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest paging 53
