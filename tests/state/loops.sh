#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
# A Debian guest under load goes through SUSPENDS cycles of suspend and restore, ENGINES changes of its engine (where there
# is hardware virtualization: else tests/kvm/switch.sh), MIGRATIONS to another process, and SNAPSHOTS cycles of snapshot,
# kill and restore. It compiles a program and runs it, stamps its memory page by page, writes and reads blocks of a disk
# past the page cache, and takes a stream over TCP, whose connection ends with the process and is made anew; all of it is
# checked all the time. After each step everything must have gone on. 100, 20, 20 and 100 are the long form.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../migrate/lib.sh"
SUSPENDS=${SUSPENDS:-2} ENGINES=${ENGINES:-2} MIGRATIONS=${MIGRATIONS:-1} SNAPSHOTS=${SNAPSHOTS:-2}
images kernel boot test
LOAD=$ROOT/tests/state/load

python3 "$LOAD/stream.py" serve >"$T/port" &
children="$children $!"
truncate -s 16M "$T/scratch"
mkdir -p "$T/add/cicada"
cp "$LOAD/stamp.c" "$LOAD/stream.py" "$T/add/cicada/"
wait_file 10 "$T/port" ""
{ echo "PORT=$(cat "$T/port")" && cat "$LOAD/guest"; } >"$T/script"
with_script "$BOOT" "$T/script" "$T/initrd"

# working NAME: each of its works has gone on since now, and nothing is wrong.
working() {
    for work in memory disk stream; do
        done=$(grep -ac "^$work [0-9]" "$T/$1.con")
        tries=600
        until [ "$(grep -ac "^$work [0-9]" "$T/$1.con")" -gt "$done" ]; do
            [ $tries -gt 0 ] || fail "$1: $work stands: $(tail -n 20 "$T/$1.con"; cat "$T/$1.err")"
            sleep 0.1
            tries=$((tries - 1))
        done
    done
    ! grep -aE "WRONG|CICADA: script" "$T/$1.con" || fail "$1: the guest complains"
}

# restored DIR: goes on, with a console of its own.
restored() {
    cat "$T/guest.con" >>"$T/history"
    : >"$T/guest.con"
    "$CICADA" restore "$1" --engine "$ENGINE" --name guest --serial "file:$T/guest.con" </dev/null >"$T/guest.out" \
        2>"$T/guest.err" &
    SOURCE=$!
    children="$children $SOURCE"
    working guest
}

# compiled: how often, since the guest began.
compiled() { cat "$T/history" "$T"/*.con | sed -n 's/^compile \([0-9]*\)\r*$/\1/p' | sort -n | tail -n 1; }

suspends() {
    n=0
    while [ $n -lt "$SUSPENDS" ]; do
        n=$((n + 1))
        timeout 60 "$CICADA" suspend guest --to "$T/suspended$n" 2>"$T/err" || fail "suspend $n: $(cat "$T/err")"
        exit_of "$SOURCE" 20
        ends_with 6
        restored "$T/suspended$n"
        rm -rf "$T/suspended$((n - 1))"
    done
    echo "$n suspended and restored; compiled $(compiled)"
}

engines() {
    [ -w /dev/kvm ] && grep -qwE "vmx|svm" /proc/cpuinfo || { echo "no engine changed: no hardware here"; return; }
    n=0
    while [ $n -lt "$ENGINES" ]; do
        n=$((n + 1))
        [ $((n % 2)) = 1 ] && engine=kvm || engine=xlate
        timeout 60 "$CICADA" engine guest $engine 2>"$T/err" || fail "to $engine: $(cat "$T/err")"
        working guest
    done
    echo "$n times on another engine; compiled $(compiled)"
}

migrations() {
    n=0
    while [ $n -lt "$MIGRATIONS" ]; do
        n=$((n + 1))
        target_vm "moved$n" "unix:$T/socket"
        timeout 120 "$CICADA" migrate "$NAME" --to "$AT" >"$T/out" 2>"$T/err" || fail "migration $n: $(cat "$T/err")"
        exit_of "$SOURCE" 20
        ends_with 6
        SOURCE=$TARGET NAME=moved$n
        working "$NAME"
    done
    echo "$n migrated; compiled $(compiled)"
}

snapshots() {
    n=0
    while [ $n -lt "$SNAPSHOTS" ]; do
        n=$((n + 1))
        timeout 60 "$CICADA" snapshot "$NAME" --to "$T/snapshot$n" >"$T/out" 2>"$T/err" || fail "snapshot $n: $(cat "$T/err")"
        kill -9 "$SOURCE"
        wait "$SOURCE" 2>/dev/null
        restored "$T/snapshot$n"
        NAME=guest
        rm -rf "$T/snapshot$((n - 1))"
    done
    echo "$n times snapshot, killed, restored; compiled $(compiled)"
}

NAME=guest
: >"$T/history"
source_vm guest --memory 256M --cpus 2 --initrd "$T/initrd" --disk "$CACHE/debian-test.ext4,ro" --disk "$T/scratch" \
    --net user --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_file 60 "$T/guest.con" "compile 1"
working guest
suspends
engines
migrations
snapshots
built=$(compiled)
tries=600
until [ "$(compiled)" -gt "$built" ]; do # the one that was under way is right as well
    [ $tries -gt 0 ] || fail "the guest compiles no more"
    sleep 0.1
    tries=$((tries - 1))
done
working "$NAME"
! grep -aE "WRONG|CICADA: script" "$T/history" || fail "the guest has complained"
last=$(sed -n "s/^stream \([0-9]* [0-9]*\)\r*$/\1/p" "$T/$NAME.con" | tail -n 1)
echo "the stream: ${last% *} MiB by ${last#* } connections"
processes=$((1 + SUSPENDS + MIGRATIONS + SNAPSHOTS))
[ "${last#* }" -ge $processes ] || fail "$processes processes had less connections: ${last#* }"
"$CICADA" stop "$NAME"
exit_of "$SOURCE" 10
ends_with 0
