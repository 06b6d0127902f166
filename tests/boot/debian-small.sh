#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# The guest of `make demo`: a Debian tree on a virtio disk, DHCP, a fetch over the network, a clean end.
. "$(dirname "$0")/../lib.sh"
images kernel boot small
copy_disk small
mkdir "$T/www"
echo "Hello from the host." >"$T/www/hello.txt"
serve "$T/www"
vm 120 --kernel "$KERNEL" --initrd "$BOOT" --disk "$DISK" --net user --cpus 2 --memory 512M --cmdline \
    "console=ttyS0 root=/dev/vda init=/sbin/cicada-init cicada.demo=1 cicada.url=http://10.0.2.2:$PORT/hello.txt"
shows "Hello from the host."
shows "CICADA: demo passed"
ends_with 0
e2fsck -fn "$DISK" >"$T/err" 2>&1 || fail "the file system is damaged"
