#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Exceptions in long mode: vectors, error codes, priorities, delivery (src/except.c).
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest except 103
