#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# Disks: a snapshot has its own copies and restores as often as one likes, each time from the same contents; a suspended
# VM goes on with its disk in place, and is refused when somebody has written to it meanwhile.
. "$(dirname "$0")/../lib.sh"
images kernel boot
export XDG_RUNTIME_DIR="$T"
truncate -s 64M "$T/disk"
dd if=/dev/urandom of="$T/disk" bs=1M count=8 seek=20 conv=notrunc 2>/dev/null
cat >"$T/script" <<'END'
mke2fs -q /dev/vda 2>/dev/null || mkfs.ext2 /dev/vda >/dev/null || echo "GUEST: no mkfs"
mkdir /mnt
mount -t ext2 /dev/vda /mnt
i=0
while :; do
    i=$((i + 1))
    head -c 262144 /dev/urandom >/mnt/$((i % 20))
    (cd /mnt && sha256sum $((i % 20)) >>/tmp/sums.$((i % 20)) && tail -n 1 /tmp/sums.$((i % 20)) >/mnt/sum.$((i % 20)))
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat /mnt/sum.* >/tmp/all
    (cd /mnt && sha256sum -c -s /tmp/all) && echo "GUEST: disk round $i good" || echo "GUEST: disk differs"
done
END
with_script "$BOOT" "$T/script" "$T/initrd"
start --name d -m 128M --kernel "$KERNEL" --initrd "$T/initrd" --disk "$T/disk" --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: disk round 3 good"
"$CICADA" snapshot d --to "$T/snap" >/dev/null || fail "snapshot"
wait_console 60 "good" $(($(grep -ac good "$CONSOLE") + 3))
kill -9 "$VM"
wait "$VM" 2>/dev/null

# resume_from DIR: four rounds more, all good.
resume_from() {
    : >"$CONSOLE" # the shell empties it some time later
    "$CICADA" restore "$1" --engine "$ENGINE" --serial stdio </dev/null >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    wait_console 60 "good" 4
    grep -a "differs\|rror" "$CONSOLE" && fail "the guest of $1 sees damage"
    :
}
sum=$(sha256sum <"$T/snap/disk0")
first=
for again in 1 2; do
    resume_from "$T/snap"
    round=$(grep -am 2 good "$CONSOLE" | tail -n 1)
    [ -z "$first" ] || [ "$round" = "$first" ] || fail "the second restore begins elsewhere: $round, not $first"
    first=$round
    [ $again = 2 ] || { kill -9 "$VM"; wait "$VM" 2>/dev/null; }
done
[ "$(sha256sum <"$T/snap/disk0")" = "$sum" ] || fail "a restored VM wrote to the snapshot's disk"
# The restored VM runs on a layer, which a second snapshot flattens.
"$CICADA" suspend d --to "$T/susp" || fail "suspend"
wait "$VM"
[ -s "$T/susp/disk0" ] || fail "the layer was not saved"
resume_from "$T/susp"
"$CICADA" stop d || fail "stop"
wait "$VM"

# In place: a disk that is nobody's copy.
rm "$T/keys"
: >"$CONSOLE"
start --name d -m 128M --kernel "$KERNEL" --initrd "$T/initrd" --disk "$T/disk" --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: disk round 2 good"
"$CICADA" suspend d --to "$T/place" || fail "suspend in place"
wait "$VM"
[ -e "$T/place/disk0" ] && fail "a suspended VM's own disk was copied"
resume_from "$T/place"
"$CICADA" stop d || fail "stop"
wait "$VM"
"$CICADA" restore "$T/place" --engine "$ENGINE" </dev/null >"$T/out" 2>"$T/err"
[ $? = 1 ] && grep -q "has been changed since" "$T/err" || fail "a changed disk is accepted"
mv "$T/disk" "$T/gone"
"$CICADA" restore "$T/place" --engine "$ENGINE" </dev/null >"$T/out" 2>"$T/err"
[ $? = 1 ] && grep -q "disk.*No such file" "$T/err" || fail "a missing disk is accepted"
