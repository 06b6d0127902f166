#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Guests that misbehave (src/hostile.c): the VM stays under control, ends as documented, or lives on.
# timeout: 300
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
build_guests hostile
truncate -s 4M "$T/disk"

hostile() { # WHAT ARGUMENT...
    what=$1
    shift
    for variant in $(variants); do
        set_variant "$variant"
        # shellcheck disable=SC2086 # a list
        vm 60 --memory 64M --debug-exit --no-reboot $opts --kernel "$GUESTS/hostile.elf" --cmdline "$what" "$@"
        echo "$what ($variant): exit code $code"
        shows ready
        ends_with "$wanted"
    done
}
lives_on() {
    wanted=64
    hostile "$@"
    shows alive
}

wanted=3 && hostile triple
wanted=4 && hostile cf9 && hostile kbd && hostile port92
lives_on ports
lives_on mmio --disk "$T/disk" --net user
lives_on rings --disk "$T/disk" --net user
lives_on escape
lives_on chaos

# A guest that listens to nobody: SIGTERM, the control socket and the keyboard still end it.
XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir -m 700 "$T/run"
deaf() { # WHAT: starts it
    rm -f "$T/keys"
    start --name deaf --memory 64M --kernel "$GUESTS/hostile.elf" --cmdline "$1"
    wait_console 10 ready
}
ended() { # EXIT-CODE
    finish 5
    exec 3>&-
    echo "$what by $by: exit code $code"
    ends_with "$1"
}
for what in spin halt; do
    by=SIGTERM && deaf $what && kill -TERM "$VM" && ended 143
    by="the control socket" && deaf $what
    "$CICADA" ps | grep -q deaf || fail "ps does not list the VM"
    timeout 10 "$CICADA" stop deaf || fail "stop: exit code $?"
    finish 5
    exec 3>&-
    echo "$what by $by: exit code $code"
    ends_with 0
done

command -v script >/dev/null 2>&1 || exit 0
typist() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        grep -aq ready "$CONSOLE" && break
        sleep 0.5
    done
    printf '\001x'
    sleep 3
}
for what in spin halt; do
    : >"$CONSOLE"
    typist | timeout -k 5 60 script -qefc "$CICADA run --engine $ENGINE --serial stdio --memory 64M \
        --kernel $GUESTS/hostile.elf --cmdline $what; echo code=\$?" /dev/null >"$CONSOLE" 2>&1
    echo "$what by Ctrl-A x: $(grep -ao 'code=[0-9]*' "$CONSOLE")"
    shows code=130
done
