#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian's kernel to userspace with two vCPUs, both on line.
. "$(dirname "$0")/../lib.sh"
images kernel plain
vm 90 --kernel "$KERNEL" --initrd "$PLAIN" --cpus 2 --cmdline "console=ttyS0 cicada.mode=poweroff"
shows "CICADA: userspace reached"
shows "Brought up 1 node, 2 CPUs"
ends_with 0
