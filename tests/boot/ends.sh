#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How a guest ends is the exit code: 0 power-off, 4 reset with --no-reboot; without it a reset starts anew.
. "$(dirname "$0")/../lib.sh"
images kernel plain
vm 40 --no-reboot --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet cicada.mode=reboot"
shows "CICADA: userspace reached"
ends_with 4

start --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet cicada.mode=reboot"
wait_console 80 "CICADA: userspace reached" 3
kill -TERM "$VM"
finish 10
ends_with 143
