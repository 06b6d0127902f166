#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
# Debian with systemd to the login prompt, a session on it, no failed unit, and a clean shutdown.
. "$(dirname "$0")/../lib.sh"
images kernel boot systemd
copy_disk systemd
start --kernel "$KERNEL" --initrd "$BOOT" --disk "$DISK" --net user --cpus 2 --memory 1G --cmdline \
    "console=ttyS0 root=/dev/vda"
wait_console 200 "cicada login: root (automatic login)"
wait_console 60 "root@cicada:~#"
echo 'systemctl is-system-running --wait; systemctl --failed --no-legend; echo session-''end' >&3
wait_console 100 "session-end"
shows running
grep -aq degraded "$CONSOLE" && fail "a unit failed"
echo 'uname -r; ip -4 -o address; grep -c processor /proc/cpuinfo; poweroff' >&3
finish 90
ends_with 0
shows "inet 10.0.2.15"
e2fsck -fn "$DISK" >"$T/err" 2>&1 || fail "the file system is damaged"
