#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# Every way into Linux: the 64-bit and 32-bit entries of the bzImage, its payload, the ELF by PVH and by Linux's entry.
. "$(dirname "$0")/../lib.sh"
images kernel vmlinux plain
way() { # NAME KERNEL
    vm 60 --boot "$1" --kernel "$2" --initrd "$PLAIN" --cmdline "console=ttyS0 cicada.mode=poweroff"
    shows "CICADA: userspace reached"
    ends_with 0
    echo "$1 works"
}
way auto "$KERNEL"
way bzimage64 "$KERNEL"
way bzimage32 "$KERNEL"
way payload "$KERNEL"
way pvh "$VMLINUX"
way pvh "$KERNEL"
way elf64 "$VMLINUX"
way auto "$VMLINUX"
