#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The 17 sensitive but unprivileged instructions (src/sensitive.c); what they print is in the log.
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
run_guest sensitive 17
