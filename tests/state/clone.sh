#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clones of a running guest: each has its own name, all run, the original goes on; restore --count does the same from a
# directory, and the guest's clock jumps or not as asked for.
. "$(dirname "$0")/../lib.sh"
images kernel plain
export XDG_RUNTIME_DIR="$T"
cat >"$T/script" <<'END'
i=0
while :; do
    i=$((i + 1))
    echo "GUEST: tick $i at $(date +%s) generation $(awk '/ACPI:Ged/ { print $2 }' /proc/interrupts)"
    sleep 0.2
done
END
with_script "$PLAIN" "$T/script" "$T/initrd"
start --name c -m 128M --kernel "$KERNEL" --initrd "$T/initrd" --net user --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: tick 5 "
"$CICADA" clone c --count 3 --serial "file:$T/serial" >"$T/out" || fail "clone"
[ "$(grep -c '^c-[123] ' "$T/out")" = 3 ] || fail "three clones are not listed"
children="$children $(awk 'NR > 1 { print $2 }' "$T/out" | tr '\n' ' ')"
at=$(grep -ac "GUEST: tick" "$CONSOLE")
for n in 1 2 3; do
    tries=200
    until [ "$(grep -ac "GUEST: tick" "$T/serial.$n" 2>/dev/null)" -ge 3 ] 2>/dev/null; do
        [ $tries -gt 0 ] || fail "clone $n does not run"
        sleep 0.1
        tries=$((tries - 1))
    done
    # It goes on where the original was, not from the beginning.
    grep -aq "GUEST: tick 1 " "$T/serial.$n" && fail "clone $n began anew"
done
[ "$("$CICADA" ps --json | grep -c '"name": "c')" = 4 ] || fail "ps does not show four"
wait_console 20 "GUEST: tick" $((at + 3))
for n in 1 2 3; do "$CICADA" stop c-$n || fail "stop c-$n"; done
[ -z "$(ls -d /dev/shm/cicada-clone.* 2>/dev/null)" ] || fail "the base of the clones is left"

"$CICADA" suspend c --to "$T/snap" || fail "suspend"
saved=$(sed -n 's/.*tick .* at \([0-9]*\).*/\1/p' "$CONSOLE" | tail -n 1)
sleep 4
"$CICADA" restore "$T/snap" --engine "$ENGINE" --name j --count 1 --clock jump --serial "file:$T/jump" >"$T/out" || fail "restore --count"
"$CICADA" restore "$T/snap" --engine "$ENGINE" --name g --count 1 --serial "file:$T/go" >>"$T/out" || fail "restore --count"
children="$children $(awk '$2 + 0 { print $2 }' "$T/out" | tr '\n' ' ')"
# first_time FILE: of the second complete line.
first_time() {
    tries=200
    until [ "$(grep -ac "GUEST: tick" "$1")" -ge 3 ]; do
        [ $tries -gt 0 ] || fail "the VM of $1 does not run"
        sleep 0.1
        tries=$((tries - 1))
    done
    sed -n 's/.*tick .* at \([0-9]*\).*/\1/p' "$1" | sed -n 2p
}
jumped=$(($(first_time "$T/jump.1") - saved))
went_on=$(($(first_time "$T/go.1") - saved))
[ $jumped -ge 4 ] || fail "--clock jump: the guest's clock is $jumped s on, at least 4 wanted"
[ $went_on -lt 4 ] || fail "--clock continue: the guest's clock is $went_on s on"
# The guest was told of its new generation, once in each.
for file in "$T/jump.1" "$T/go.1"; do
    grep -aq "generation 1" "$file" || fail "the guest was not told that it was restored"
done
grep -aq "generation [1-9]" "$CONSOLE" && fail "the original was told of a new generation"
"$CICADA" stop j-1 && "$CICADA" stop g-1
