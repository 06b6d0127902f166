#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# kill -9 of the client and of the VM at many moments of a snapshot and of a suspend: what has the name of a snapshot is
# complete and restores; where the client died, the guest goes on, or its snapshot is complete and the guest ended.
# MOMENTS=50 is the long form.
. "$(dirname "$0")/../lib.sh"
images kernel plain
MOMENTS=${MOMENTS:-10}
export XDG_RUNTIME_DIR="$T"
boot() {
    rm -f "$T/keys"
    : >"$CONSOLE"
    start --name k -m 128M --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet"
    wait_console 60 "powers off"
}
alive() {
    i=$((i + 1))
    echo "echo alive \$(($i + 1000))" >&3
    wait_console 20 "alive $((i + 1000))"
}
boot
i=0
n=0
while [ $n -lt "$MOMENTS" ]; do
    n=$((n + 1))
    verb=snapshot
    [ $((n % 3)) != 0 ] || verb=suspend
    "$CICADA" $verb k --to "$T/snap" >/dev/null 2>"$T/err" &
    client=$!
    # From the first milliseconds to past the end.
    sleep "$(awk -v n=$n -v m="$MOMENTS" 'BEGIN { print 0.4 * n * n / (m * m) }')"
    kill -9 "$client" 2>/dev/null
    wait "$client" 2>/dev/null
    if [ -e "$T/snap" ]; then
        "$CICADA" snapshot verify "$T/snap" >/dev/null || fail "moment $n: what has the name of a snapshot is broken"
    fi
    sleep 0.1
    if [ $verb = suspend ] && [ -e "$T/snap" ] && ! kill -0 "$VM" 2>/dev/null; then
        wait "$VM"
        [ $? = 6 ] || fail "moment $n: the VM ended otherwise than suspended"
        boot
    else
        kill -0 "$VM" 2>/dev/null || fail "moment $n: neither a snapshot nor a VM"
        alive
    fi
    chmod -R u+w "$T/snap" 2>/dev/null
    rm -rf "$T/snap"
done
for delay in 0.01 0.05 0.1; do
    "$CICADA" snapshot k --to "$T/snap" >/dev/null 2>"$T/err" &
    client=$!
    sleep $delay
    kill -9 "$VM"
    wait "$client"
    code=$?
    wait "$VM" 2>/dev/null
    if [ $code = 0 ]; then
        "$CICADA" snapshot verify "$T/snap" >/dev/null || fail "a snapshot of a killed VM is broken"
        "$CICADA" snapshot rm "$T/snap" || fail "rm"
    else
        [ -e "$T/snap" ] && fail "a failed snapshot has its name"
        [ -s "$T/err" ] || fail "no message"
    fi
    boot
done
[ -z "$(find "$T" -name '*.partial' -newer "$T/keys")" ] || fail "a client that lived left a temporary directory"
"$CICADA" stop k
