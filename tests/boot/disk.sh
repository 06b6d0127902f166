#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# virtio-blk end to end: what the guest reads is what the host wrote, and the other way round, in large and small
# pieces; a read-only disk refuses writes.
. "$(dirname "$0")/../lib.sh"
images kernel boot
dd if=/dev/urandom of="$T/a" bs=1M count=64 2>/dev/null
truncate -s 64M "$T/b"
truncate -s 8M "$T/c"
cp "$T/c" "$T/c.before"
sum=$(sha256sum <"$T/a" | cut -d ' ' -f 1)
cat >"$T/script" <<'END'
echo "sizes: $(cat /sys/block/vda/size) $(cat /sys/block/vdb/size) $(cat /sys/block/vdc/size)"
echo "guest read $(sha256sum </dev/vda)"
# Large pieces, then single sectors at odd places, then two writers at once.
dd if=/dev/vda of=/dev/vdb bs=1M 2>/dev/null
for i in 3 70001 131 99999 17; do dd if=/dev/vda of=/dev/vdb bs=512 count=1 skip=$i seek=$i conv=notrunc oflag=direct 2>/dev/null; done
dd if=/dev/vda of=/dev/vdb bs=4k count=4000 conv=notrunc 2>/dev/null &
dd if=/dev/vda of=/dev/vdb bs=4k count=4000 skip=8000 seek=8000 conv=notrunc oflag=direct 2>/dev/null
wait
sync
echo 3 >/proc/sys/vm/drop_caches
echo "guest copy $(sha256sum </dev/vdb)"
[ "$(cat /sys/block/vdc/ro)" = 1 ] && echo "vdc is read-only"
dd if=/dev/zero of=/dev/vdc bs=512 count=1 conv=notrunc oflag=direct 2>/dev/null && echo "vdc could be written"
END
with_script "$BOOT" "$T/script" "$T/initrd"
vm 220 --kernel "$KERNEL" --initrd "$T/initrd" --disk "$T/a" --disk "$T/b" --disk "$T/c,ro" --cpus 2 \
    --cmdline "console=ttyS0 quiet cicada.mode=script"
ends_with 0
shows "sizes: 131072 131072 16384"
shows "guest read $sum"
shows "guest copy $sum"
shows "vdc is read-only"
grep -aq "could be written" "$CONSOLE" && fail "a read-only disk took a write"
[ "$(sha256sum <"$T/b" | cut -d ' ' -f 1)" = "$sum" ] || fail "the host does not see what the guest wrote"
cmp "$T/c" "$T/c.before" || fail "the read-only disk was changed"
