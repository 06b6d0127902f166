#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
# The lockstep tool on this machine: whole tiny guests translated and emulated at once, states and memory compared after
# every access and after every few instructions; and it must find a difference where there is one.
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
LOCKSTEP=$BUILD/tests/lockstep/lockstep
GUESTS_HERE="real protected except paging transfer user sensitive smc debug"

# shellcheck disable=SC2086 # a list
build_guests $GUESTS_HERE

lockstep() { # EXPECTED-CODE ARGUMENT...
    expected=$1
    shift
    timeout -k 5 100 "$LOCKSTEP" --quiet --cmdline "$LOCKSTEP_LEFT_OUT" "$@" >"$CONSOLE" 2>"$T/err"
    code=$?
    echo "lockstep $*: $(tail -n 1 "$CONSOLE")"
    [ $code = "$expected" ] || fail "lockstep $*: exit code $code, wanted $expected"
}

for guest in $GUESTS_HERE; do
    lockstep 0 --engines xlate,xlate/emulate "$GUESTS/$guest.elf"
    shows "the guest's exit code 0"
done
for every in 1 7 100; do
    lockstep 0 --engines xlate,xlate/emulate --every $every --steps 200000 "$GUESTS/protected.elf"
    grep -aq " [1-9][0-9]* steps" "$CONSOLE" || fail "no steps"
done

# Emulator and translated code show another RIP after a branch to a bad address: found, and shown with the code there.
lockstep 1 --cmdline "" --engines xlate,xlate/emulate "$GUESTS/except.elf"
grep -aqE "differ after [0-9]+ accesses: memory at" "$CONSOLE" || fail "the difference is not told"
grep -aqE "^  0008:[0-9a-f]+: .*  [a-z]+" "$CONSOLE" || fail "no disassembly"
"$LOCKSTEP" --engines xlate,nothing "$GUESTS/smc.elf" >"$CONSOLE" 2>&1
[ $? = 77 ] || fail "an engine that is not there"
"$LOCKSTEP" --engines xlate "$GUESTS/smc.elf" >"$CONSOLE" 2>&1
[ $? = 2 ] || fail "one engine is not two"
