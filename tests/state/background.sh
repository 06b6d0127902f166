#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 200
# A live snapshot on a file system that cannot share blocks: a disk of 256 MiB is copied while the guest writes all over
# it, only a little of it while the guest stands, and the copy is of the same moment as the memory. The same from a
# private layer. A client that goes away in the middle of the copy leaves nothing behind but a running guest.
. "$(dirname "$0")/../lib.sh"
images kernel boot
export XDG_RUNTIME_DIR="$T"
dd if=/dev/urandom of="$T/disk" bs=1M count=256 2>/dev/null
! cp --reflink=always "$T/disk" "$T/shared" 2>/dev/null || skip "this file system shares blocks"
# 64 places, 4 MiB from each other: what the disk has at each must be what the memory says.
cat >"$T/script" <<'END2'
i=0
mkdir /tmp/slot
while :; do
    i=$((i + 1))
    k=0
    while [ $k -lt 64 ]; do
        echo "slot $k round $i" >/tmp/new
        dd if=/tmp/new of=/dev/vda bs=4096 seek=$((k * 1024)) count=1 conv=sync,notrunc oflag=direct 2>/dev/null
        mv /tmp/new /tmp/slot/$k
        k=$((k + 1))
    done
    k=0
    while [ $k -lt 64 ]; do
        read -r was </tmp/slot/$k
        is=$(dd if=/dev/vda bs=4096 skip=$((k * 1024)) count=1 iflag=direct 2>/dev/null | head -n 1)
        [ "$is" = "$was" ] || echo "GUEST: differs: $was, not $is"
        k=$((k + 1))
    done
    echo "GUEST: round $i"
done
END2
with_script "$BOOT" "$T/script" "$T/initrd"
start --name b -m 128M --kernel "$KERNEL" --initrd "$T/initrd" --disk "$T/disk" -v -v \
    --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: round 2"

# stood_for_little: by what the VM logs.
stood_for_little() {
    kib=$(sed -n 's/.* \([0-9]*\) KiB of disks copied while the guest stood.*/\1/p' "$T/err" | tail -n 1)
    [ -n "$kib" ] || fail "the disk was not copied beside the guest"
    [ "$kib" -le 32768 ] || fail "$kib KiB were copied while the guest stood"
    echo "$kib KiB while the guest stood; $(cat "$T/out")"
}
go_on() {
    : >"$CONSOLE"
    "$CICADA" restore "$1" --engine "$ENGINE" --name b --serial stdio -v -v </dev/null >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    wait_console 60 "GUEST: round" 2
    grep -a "differs" "$CONSOLE" && fail "the disk of $1 is of another moment than its memory"
    :
}

"$CICADA" snapshot b --to "$T/first" >"$T/out" || fail "snapshot"
stood_for_little
# The client dies while the disk is copied: the guest goes on, the next snapshot is as good as any.
for delay in 0.02 0.1 0.2; do
    "$CICADA" snapshot b --to "$T/dead" >/dev/null 2>&1 &
    client=$!
    sleep $delay
    kill -9 $client 2>/dev/null
    wait $client 2>/dev/null
    [ ! -e "$T/dead" ] || { chmod -R u+w "$T/dead" && rm -r "$T/dead"; }
done
tries=50
until "$CICADA" snapshot b --to "$T/second" >"$T/out" 2>"$T/why"; do
    grep -q "is being taken" "$T/why" && [ $tries -gt 0 ] || fail "after killed clients: $(cat "$T/why")"
    sleep 0.1
    tries=$((tries - 1))
done
stood_for_little
wait_console 60 "GUEST: round" $(($(grep -ac "GUEST: round" "$CONSOLE") + 2))
grep -a "differs" "$CONSOLE" && fail "the guest sees damage"
kill -9 "$VM"
wait "$VM" 2>/dev/null
go_on "$T/first"
# It runs on a private layer over the copy.
"$CICADA" snapshot b --to "$T/third" >"$T/out" || fail "snapshot of a layer"
stood_for_little
kill -9 "$VM"
wait "$VM" 2>/dev/null
go_on "$T/third"
"$CICADA" stop b
wait "$VM"
go_on "$T/second"
"$CICADA" stop b
