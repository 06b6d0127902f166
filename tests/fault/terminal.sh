#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The terminal is as before, however the VM ended: by Ctrl-A x, by a signal, by an error in the configuration.
. "$(dirname "$0")/../lib.sh"
command -v script >/dev/null 2>&1 || skip "needs script(1)"
images kernel plain

# in_terminal SECONDS KEYS COMMAND: runs COMMAND on a new terminal and types KEYS after some seconds.
in_terminal() {
    cat >"$T/session" <<END
stty -g >$T/before
$3
echo \$? >$T/code
stty -g >$T/after
END
    (
        sleep "$1"
        # shellcheck disable=SC2059 # escapes are wanted
        printf "$2"
        sleep 2
    ) | timeout -k 5 40 script -qec "sh $T/session" /dev/null >"$CONSOLE" 2>&1
    cmp -s "$T/before" "$T/after" || fail "the terminal was changed: $(cat "$T/before") and now $(cat "$T/after")"
    code=$(cat "$T/code")
}
run="$CICADA run --engine $ENGINE --serial stdio --kernel $KERNEL --initrd $PLAIN --cmdline 'console=ttyS0 cicada.mode=hang'"
in_terminal 2 '\001x' "$run"
ends_with 130
in_terminal 4 '' "timeout -s TERM 2 $run"
ends_with 124
in_terminal 1 '' "$run --disk $T/missing"
ends_with 1
