#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# A guest whose memory is stamped with checksums lives through snapshot, kill and restore, and through suspend and
# restore, CYCLES times, as full snapshots, differences and compressed ones; it finds no difference, and its clock goes
# on. CYCLES=100 is the long form.
. "$(dirname "$0")/../lib.sh"
images kernel plain
CYCLES=${CYCLES:-4}
export XDG_RUNTIME_DIR="$T"
cat >"$T/script" <<'END'
i=0
mkdir /tmp/stamp
while [ $i -lt 20 ]; do
    head -c 1048576 /dev/urandom >/tmp/stamp/$i
    i=$((i + 1))
done
(cd /tmp/stamp && sha256sum *) >/tmp/sums
i=0
while :; do
    # Some of it changes all the time, the rest must not.
    head -c 65536 /dev/urandom >/tmp/churn
    sum=$(sha256sum </tmp/churn)
    (cd /tmp/stamp && sha256sum -c -s /tmp/sums) || echo "GUEST: memory differs"
    [ "$sum" = "$(sha256sum </tmp/churn)" ] || echo "GUEST: churn differs"
    i=$((i + 1))
    echo "GUEST: round $i at $(date +%s)"
done
END
with_script "$PLAIN" "$T/script" "$T/initrd"
start --name s -m 256M --cpus 2 --kernel "$KERNEL" --initrd "$T/initrd" --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: round 2 "

# go_on DIR [OPTION]...: restores and waits for three more rounds.
go_on() {
    from=$1
    shift
    : >"$CONSOLE" # the shell empties it some time later
    "$CICADA" restore "$from" --engine "$ENGINE" --name s --serial stdio "$@" </dev/null >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    wait_console 60 "GUEST: round" 3
}

n=0
while [ $n -lt "$CYCLES" ]; do
    n=$((n + 1))
    set --
    case $((n % 4)) in
    0) set -- --zstd ;;
    2) set -- --diff ;;
    esac
    "$CICADA" snapshot s --to "$T/snap$n" "$@" >"$T/out" || fail "snapshot $n $*"
    grep -q "stood for" "$T/out" || fail "snapshot tells no pause"
    "$CICADA" snapshot verify "$T/snap$n" >/dev/null || fail "snapshot $n does not verify"
    wait_console 60 "GUEST: round" $(($(grep -ac "GUEST: round" "$CONSOLE") + 1))
    kill -9 "$VM"
    wait "$VM" 2>/dev/null
    if [ $((n % 2)) = 0 ]; then go_on "$T/snap$n" --eager; else go_on "$T/snap$n"; fi
    grep -a "differs" "$CONSOLE" && fail "cycle $n, after the restore"
    "$CICADA" suspend s --to "$T/susp$n" || fail "suspend $n"
    wait "$VM"
    [ $? = 6 ] || fail "exit code of a suspended VM"
    [ -d "$T/cicada/s" ] && fail "the run directory of the suspended VM is left"
    go_on "$T/susp$n"
    grep -a "differs" "$CONSOLE" && fail "cycle $n, after the suspend"
    [ "$("$CICADA" snapshot info "$T/snap$n" --json | grep -c '"parent"')" = $((n % 4 == 2)) ] || fail "kind of snapshot $n"
    # Nothing refers to the difference; then nothing refers to what it was made from.
    "$CICADA" snapshot list "$T" | grep -q "snap$n " || fail "list does not show snap$n"
    "$CICADA" snapshot rm "$T/snap$n" || fail "rm snap$n"
    [ $n = 1 ] || "$CICADA" snapshot rm "$T/susp$((n - 1))" || fail "rm susp$((n - 1))"
done
"$CICADA" stop s || fail "stop"
