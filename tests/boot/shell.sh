#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is typed reaches the guest, through a pipe as through a terminal, and what it prints comes back whole.
. "$(dirname "$0")/../lib.sh"
images kernel plain
start --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet"
wait_console 60 "'exit' powers off"
sleep 1
echo 'echo answer=$((6 * 7))' >&3
wait_console 20 "answer=42"
# A long burst in both directions.
echo 'stty -echo; seq 1 20000 | md5sum; seq 1 20000' >&3
wait_console 60 "$(seq 1 20000 | md5sum | cut -d ' ' -f 1)"
wait_console 60 "20000"
echo 'echo the''-end; exit' >&3
finish 20
ends_with 0
tr -d '\r' <"$CONSOLE" | grep -a '^[0-9][0-9]*$' >"$T/numbers"
[ "$(md5sum <"$T/numbers")" = "$(seq 1 20000 | md5sum)" ] || fail "the console lost or changed some of 20000 lines"
