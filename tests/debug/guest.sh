#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gdb on a tiny guest with symbols: breakpoints of both kinds, watchpoints, steps, registers, memory, from the first
# instruction on. The guest checks that it sees nothing of them, translated and emulated.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
build_guests debuggee

for variant in none emulate; do
    set_variant "$variant"
    rm -f "$T/keys"
    # shellcheck disable=SC2086 # a list
    debug ,wait $opts --memory 64M --debug-exit --kernel "$GUESTS/debuggee.elf" --cmdline spin
    gdb_script 60 "$GUESTS/debuggee.debug" <"$ROOT/tests/debug/guest.gdb"
    finish 20
    said "^rip +0x10000c "
    said "^Breakpoint 1, station2 \(v=1\)"
    said "^#1 .* test_stations \(\)"
    said "^Breakpoint 2, station5 \(v=10\)"
    said "^Value returned is .* = 15"
    said "^Breakpoint 8, station6 \(v=15\)"
    said "^Breakpoint 6, station4 \(v=27\)"
    said "= 1000$"
    said "^Hardware watchpoint 9: watched\[1\]"
    said "^New value = 101"
    said "^Value = 102"
    said "^New value = 10 "
    said "^New value = 2 "
    said "^Breakpoint 14, before_own_traps"
    said "^Temporary breakpoint 15, spin"
    said "0x100000 -> 0x100000"
    said "^engine xlate, "
    said "detached"
    ends_with 64
    shows "ok own_traps"
    shows "4 ok, 0 failed"
done
