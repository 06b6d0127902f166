#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# RAM above 4 GiB is there and can be used.
. "$(dirname "$0")/../lib.sh"
images kernel plain
cat >"$T/script" <<'END'
awk '/MemTotal/ { print "CICADA: memory " ($2 > 4500000 ? "is there" : "is missing: " $2) }' /proc/meminfo
mount -t tmpfs -o size=2G tmpfs /mnt
sum=$(dd if=/dev/urandom bs=1M count=64 2>/dev/null | tee /mnt/a | sha256sum)
for copy in b c d e f g; do cp /mnt/a /mnt/$copy; done
for copy in a b c d e f g; do [ "$(sha256sum </mnt/$copy)" = "$sum" ] || echo "copy $copy differs"; done
END
with_script "$PLAIN" "$T/script" "$T/initrd"
vm 110 --kernel "$KERNEL" --initrd "$T/initrd" --memory 5G --cmdline "console=ttyS0 quiet cicada.mode=script"
shows "CICADA: memory is there"
shows "CICADA: script exit 0"
grep -aq differs "$CONSOLE" && fail "memory did not keep what was written"
ends_with 0
