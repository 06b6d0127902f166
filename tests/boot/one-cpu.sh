#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian's kernel to userspace with one vCPU, and a power-off.
. "$(dirname "$0")/../lib.sh"
images kernel plain
vm 60 --kernel "$KERNEL" --initrd "$PLAIN" --cpus 1 --cmdline "console=ttyS0 cicada.mode=poweroff"
shows "Linux version"
shows "CICADA: userspace reached"
ends_with 0
