#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The terminal is as before, however the VM ended: by Ctrl-A x, by a signal, by an error in the configuration.
. "$(dirname "$0")/../lib.sh"
command -v script >/dev/null 2>&1 || skip "needs script(1)"
images kernel plain

# in_terminal TYPIST COMMAND: runs COMMAND on a new terminal; what the function TYPIST writes is typed.
in_terminal() {
    cat >"$T/session" <<END
stty -g >$T/before
$2
echo \$? >$T/code
stty -g >$T/after
END
    : >"$CONSOLE"
    $1 | timeout -k 5 60 script -qefc "sh $T/session" /dev/null >"$CONSOLE" 2>&1
    cmp -s "$T/before" "$T/after" || fail "the terminal was changed: $(cat "$T/before") and now $(cat "$T/after")"
    code=$(cat "$T/code")
}
# seen TEXT: waits until the terminal shows it.
seen() {
    tries=200
    until grep -aqF -- "$1" "$CONSOLE" || [ $tries = 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
}
booted() { seen "userspace reached"; }
# The pipe stays open behind the last key: script(1) ends the session at its end.
end() { sleep "${1:-1}"; }

idle() { booted && end 3; }
nothing() { end 1; }
kill_keys() { booted && printf '\001h' && seen "Ctrl-A Ctrl-A" && printf '\001x' && end; }
# Ctrl-C at the keyboard is the guest's.
shell_keys() {
    seen "/ #" && sleep 0.5
    printf 'sleep 1000\r' && seen "sleep 1000" && sleep 0.5
    printf '\003' && sleep 0.5
    printf 'echo alive=$((40 + 2))\r' && seen "alive=42" && printf 'exit\r' && end 3
}
run="$CICADA run --engine $ENGINE --serial stdio --kernel $KERNEL --initrd $PLAIN"
hang="$run --cmdline 'console=ttyS0 cicada.mode=hang'"
in_terminal kill_keys "$hang"
shows "Ctrl-A Ctrl-A"
ends_with 130
in_terminal idle "timeout -s TERM --preserve-status 3 $hang"
ends_with 143
in_terminal idle "timeout -s INT --preserve-status 3 $hang"
ends_with 130
in_terminal nothing "$hang --disk $T/missing"
ends_with 1
in_terminal shell_keys "$run --cmdline 'console=ttyS0 quiet'"
shows "alive=42"
ends_with 0
