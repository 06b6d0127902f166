#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Disks that cannot be used, and one that another VM has.
. "$(dirname "$0")/../lib.sh"
images kernel boot

refused "$T/missing" --kernel "$KERNEL" --disk "$T/missing"
refused "$T" --kernel "$KERNEL" --disk "$T"
: >"$T/empty"
refused "$T/empty" --kernel "$KERNEL" --disk "$T/empty"
head -c 1000 /dev/zero >"$T/odd"
refused "$T/odd" --kernel "$KERNEL" --disk "$T/odd"
refused /dev/null --kernel "$KERNEL" --disk /dev/null
truncate -s 1M "$T/disk"
refused rubbish --kernel "$KERNEL" --disk "$T/disk,rubbish"
refused format --kernel "$KERNEL" --disk "$T/disk,format=floppy"
# The same file twice in one VM would be written by two devices.
refused "$T/disk" --kernel "$KERNEL" --disk "$T/disk" --disk "$T/disk"

start --kernel "$KERNEL" --initrd "$BOOT" --cmdline "console=ttyS0 cicada.mode=hang" --disk "$T/disk"
tries=100
until find "/proc/$VM/fd" -lname "$T/disk" | grep -q .; do
    kill -0 "$VM" 2>/dev/null || fail "the first VM ended"
    [ $tries -gt 0 ] || fail "the first VM does not open its disk"
    tries=$((tries - 1))
    sleep 0.1
done
sleep 0.5
refused "in use" --kernel "$KERNEL" --disk "$T/disk"
refused "$T/disk" --kernel "$KERNEL" --disk "$T/disk"
kill -TERM "$VM"
finish 10
ends_with 143
all_refused
