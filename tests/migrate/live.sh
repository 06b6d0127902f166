#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Live migration of a guest that computes, to a process beside it, over both kinds of sockets, with a disk that both
# open; a migration that is cancelled; a paused guest stays paused. MIGRATIONS=20 is the long form.
# timeout: 600
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

images kernel plain
ticking_initrd
truncate -s 8M "$T/disk"

# goes_on NAME TICK: its guest counts on from there and has found nothing changed.
goes_on() {
    wait_file 60 "$T/$1.con" "tick $(($2 + 20))"
    first=$(sed -n 's/^tick \([0-9]*\)\r*$/\1/p' "$T/$1.con" | head -n 1)
    [ "$first" -le $(($2 + 2)) ] || fail "$1 began at tick $first, the source had come to $2"
    ! grep -aq WRONG "$T"/*.con || fail "the guest found its memory changed"
}

# migrate FROM TO ENDPOINT: and the figures as JSON in $T/figures.
migrate() {
    target_vm "$2" "$3"
    timeout 100 "$CICADA" migrate "$1" --to "$AT" --json >"$T/figures" 2>"$T/err" || fail "migrate $1: $(cat "$T/err")"
    exit_of "$SOURCE" 10
    ends_with 6
    goes_on "$2" "$(last_tick "$T/$1.con")"
    rm -f "$T/$1.con" "$T/$1.err"
    SOURCE=$TARGET
}

source_vm a --memory 256M --cpus 2 --disk "$T/disk" --initrd "$T/initrd" --cmdline "$TICKING"
wait_file 60 "$T/a.con" "tick 5"

# Nobody there; no migration under way.
timeout 20 "$CICADA" migrate a --to "unix:$T/nowhere" 2>"$T/err" && fail "migrated to nowhere"
grep -q "nowhere" "$T/err" || fail "the message does not say where: $(cat "$T/err")"
"$CICADA" migrate a --cancel 2>"$T/err" && fail "cancelled what is not under way"

# Cancelled in the middle: the source goes on, the target ends.
target_vm x "unix:$T/socket"
timeout 100 "$CICADA" migrate a --to "$AT" --bandwidth 1M >"$T/out" 2>"$T/err" &
migrating=$!
sleep 1
[ "$(state x)" = receiving ] || fail "the target is $(state x)"
"$CICADA" resume x 2>"$T/x.out" && fail "a VM that is coming in was resumed"
"$CICADA" migrate a --cancel || fail "cannot cancel"
wait $migrating && fail "a cancelled migration ended well"
grep -q "cancelled; it goes on here" "$T/err" || fail "after the cancel: $(cat "$T/err")"
exit_of "$TARGET" 10
ends_with 2
before=$(last_tick "$T/a.con")
wait_file 20 "$T/a.con" "tick $((before + 10))"

# A guest that writes faster than is sent: given up after the rounds, and with --force done all the same.
target_vm y "unix:$T/socket"
timeout 100 "$CICADA" migrate a --to "$AT" --bandwidth 50M --downtime 1 --rounds 3 >"$T/out" 2>"$T/err" &&
    fail "moved within 1 ms"
grep -q "writes faster than can be sent: after 3 rounds" "$T/err" || fail "not given up: $(cat "$T/err")"
[ "$(state a)" = running ] || fail "given up, and the source is $(state a)"
exit_of "$TARGET" 10
target_vm z "unix:$T/socket"
timeout 100 "$CICADA" migrate a --to "$AT" --bandwidth 50M --downtime 1 --rounds 3 --force --json >"$T/figures" 2>"$T/err" ||
    fail "not forced: $(cat "$T/err")"
grep -q '"round": 3' "$T/figures" || fail "forced in another round: $(cat "$T/figures")"
exit_of "$SOURCE" 10
goes_on z "$(last_tick "$T/a.con")"
rm -f "$T/a.con"
SOURCE=$TARGET

# The disk is locked by the source as long as it runs.
refused "in use" --kernel "$KERNEL" --disk "$T/disk"
all_refused

n=0
from=z
while [ $n -lt "${MIGRATIONS:-3}" ]; do
    n=$((n + 1))
    [ $((n % 2)) = 0 ] && at="unix:$T/socket" || at=tcp:127.0.0.1:0
    migrate $from "vm$n" "$at"
    from=vm$n
    echo "migration $n: $(tr -d '\n' <"$T/figures")"
done
refused "in use" --kernel "$KERNEL" --disk "$T/disk"
all_refused

# Paused here, paused there.
"$CICADA" pause $from
tick=$(last_tick "$T/$from.con")
target_vm last "unix:$T/socket"
timeout 100 "$CICADA" migrate $from --to "$AT" >"$T/out" 2>"$T/err" || fail "migrate paused: $(cat "$T/err")"
[ "$(state last)" = paused ] || fail "a paused VM is $(state last) at the target"
[ -z "$(last_tick "$T/last.con")" ] || fail "a paused guest ran"
"$CICADA" resume last
goes_on last "$tick"
"$CICADA" stop last
exit_of "$TARGET" 10
ends_with 0
