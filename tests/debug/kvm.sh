#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gdb on engine kvm of this host: breakpoints in debug registers, single steps.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
[ -w /dev/kvm ] || skip "no /dev/kvm here"
build_guests debuggee
ENGINE=kvm
debug ,wait --memory 64M --debug-exit --kernel "$GUESTS/debuggee.elf" --cmdline "spin"
gdb_script 60 "$GUESTS/debuggee.debug" <"$ROOT/tests/debug/registers.gdb"
said "^rip +0x10000c "
said "^Breakpoint 1, station2 \(v=1\)"
said "^Breakpoint 2, station5 \(v=10\)"
said "^Value returned is .* = 15"
said "^rip .*<station6.*>|^rip .*<test_stations\+"
said "^Temporary breakpoint 3, before_own_traps"
said "detached"
# Its own INT3 is beyond a KVM that emulates kernel code (docs/KVM.md), so the guest may not come to its end.
finish 20
shows "ok stations"
shows "ok watched_data"
