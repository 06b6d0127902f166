#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Signals end the VM with 128+N, soon, at any moment: while it starts, while it runs, while the guest is idle.
. "$(dirname "$0")/../lib.sh"
images kernel plain

ends_by_signal() { # SIGNAL NUMBER SECONDS-BEFORE
    rm -f "$T/keys"
    start --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 cicada.mode=hang"
    sleep "$3"
    kill -s "$1" "$VM" || fail "the guest ended before the signal"
    finish 5
    exec 3>&-
    echo "$1 after $3 s: exit code $code"
    ends_with $((128 + $2))
}
# In a background job sh ignores SIGINT and SIGQUIT, which a child inherits; cicada asks for them all the same.
ends_by_signal TERM 15 0.3
ends_by_signal TERM 15 2
ends_by_signal INT 2 1
ends_by_signal QUIT 3 1
ends_by_signal HUP 1 1
