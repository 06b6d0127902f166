#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
# A snapshot restored through a handler of missing pages (userfaultfd, Firecracker's protocol): the guest goes on and
# finds its memory and its disk as they were; for an unprivileged user too; clones share one handler; a VM whose handler
# dies ends and says why; what cannot be served is refused.
. "$(dirname "$0")/../lib.sh"
images kernel boot
export XDG_RUNTIME_DIR="$T"
HANDLER=$BUILD/tests/state/page_handler
cat >"$T/script" <<'END2'
dd if=/dev/urandom of=/tmp/stamp bs=1M count=8 2>/dev/null
sum=$(md5sum </tmp/stamp)
dd if=/tmp/stamp of=/dev/vda bs=1M oflag=direct 2>/dev/null
i=0
while :; do
    [ "$(md5sum </tmp/stamp)" = "$sum" ] || echo "GUEST: memory differs"
    # Into the page cache: the host's kernel writes pages that nobody has touched before.
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(head -c 8388608 /dev/vda | md5sum)" = "$sum" ] || echo "GUEST: disk differs"
    i=$((i + 1))
    echo "GUEST: round $i"
done
END2
with_script "$BOOT" "$T/script" "$T/initrd"
truncate -s 16M "$T/disk"
start --name u -m 128M --cpus 2 --kernel "$KERNEL" --initrd "$T/initrd" --disk "$T/disk" \
    --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: round 2"
"$CICADA" snapshot u --to "$T/snap" >/dev/null || fail "snapshot"
"$CICADA" snapshot u --to "$T/diff" --diff >/dev/null || fail "difference"
kill -9 "$VM"
wait "$VM" 2>/dev/null

# handler [LIMIT|close]: serves the memory of $T/snap at $T/pages.
handler() {
    rm -f "$T/pages"
    "$HANDLER" "$T/pages" "$T/snap/memory" "$@" >"$T/served" 2>"$T/handler.err" &
    SERVER=$!
    children="$children $SERVER"
    tries=50
    until [ -S "$T/pages" ]; do
        [ $tries -gt 0 ] || fail "the handler does not listen: $(cat "$T/handler.err")"
        sleep 0.1
        tries=$((tries - 1))
    done
}

# restored COMMAND...: restores with it and waits for three more rounds.
restored() {
    : >"$CONSOLE"
    "$@" restore "$T/snap" --uffd "$T/pages" --engine "$ENGINE" --name u --serial stdio </dev/null >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    sleep 0.2
    if grep -q "userfaultfd is forbidden\|userfaultfd for faults" "$T/err"; then skip "$(cat "$T/err")"; fi
}

stopped() {
    grep -a "differs" "$CONSOLE" && fail "the guest found something changed"
    "$CICADA" stop u || fail "stop"
    wait "$VM" || fail "the VM ended with $?"
    tries=50
    while kill -0 "$SERVER" 2>/dev/null; do
        [ $tries -gt 0 ] || fail "the handler does not see the end of the VM"
        sleep 0.1
        tries=$((tries - 1))
    done
    grep -q "^[1-9][0-9]* pages served" "$T/served" || fail "no page was served: $(cat "$T/served" "$T/handler.err")"
    cat "$T/served"
}

handler
restored "$CICADA"
wait_console 60 "GUEST: round" 3
# Memory that has not been asked for yet is part of a snapshot, too.
"$CICADA" snapshot u --to "$T/again" >/dev/null || fail "snapshot of a lazy VM"
"$CICADA" snapshot verify "$T/again" >/dev/null || fail "the snapshot of a lazy VM does not verify"
stopped
: >"$CONSOLE"
"$CICADA" restore "$T/again" --engine "$ENGINE" --name u --serial stdio </dev/null >"$CONSOLE" 2>"$T/err" &
VM=$!
children="$children $VM"
wait_console 60 "GUEST: round" 3
grep -a "differs" "$CONSOLE" && fail "the snapshot of a lazy VM differs"
"$CICADA" stop u

# As nobody, whom the host serves faults of user mode only: system calls must not meet a missing page.
if [ "$ENGINE" = xlate ] && [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    handler
    chmod 711 "$T"
    chmod -R a+rX "$T/snap" "$T/initrd"
    chmod 666 "$T/pages"
    mkdir -m 700 "$T/nobody"
    chown 65534:65534 "$T/nobody"
    cp "$CICADA" "$T/cicada-nobody"
    restored setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$T/nobody" "$T/cicada-nobody"
    wait_console 60 "GUEST: round" 3
    XDG_RUNTIME_DIR=$T/nobody
    stopped
    XDG_RUNTIME_DIR=$T
fi

# Three clones, one handler. Their consoles go nowhere; what is asserted is that they live.
handler
"$CICADA" restore "$T/snap" --uffd "$T/pages" --engine "$ENGINE" --name c --count 3 >/dev/null 2>"$T/err" ||
    fail "clones: $(cat "$T/err")"
for i in 1 2 3; do
    "$CICADA" pause "c-$i" || fail "clone $i does not pause"
    "$CICADA" stop "c-$i" || fail "clone $i does not stop"
done
wait "$SERVER" || fail "the handler of the clones: $(cat "$T/handler.err")"
cat "$T/served"

# A handler that dies: the guest cannot go on, nor may it hang.
handler 500
restored "$CICADA"
finish 20
ends_with 2
grep -q "is lost: the handler of its missing pages" "$T/err" || fail "after the handler's death: $(cat "$T/err")"
[ ! -d "$T/cicada/u" ] || fail "the run directory is left"

# One that hangs up at once and serves on is as good as any; until it dies.
handler close
restored "$CICADA"
wait_console 60 "GUEST: round" 3
kill -9 "$SERVER"
finish 20
ends_with 2
grep -q "is lost: the handler of its missing pages" "$T/err" || fail "after the handler's death: $(cat "$T/err")"

# says TEXT ARGUMENT...: restore refuses with exit code 1 and that text.
says() {
    text=$1
    shift
    timeout 20 "$CICADA" restore "$@" --engine "$ENGINE" </dev/null >/dev/null 2>"$T/err"
    code=$?
    [ $code = 1 ] || fail "restore $*: exit code $code: $(cat "$T/err")"
    grep -qF -- "$text" "$T/err" || fail "restore $*: $(cat "$T/err")"
}
# Where userfaultfd is forbidden, the message says what may help, and all else works.
handler
without_userfaultfd "$CICADA" restore "$T/snap" --uffd "$T/pages" --engine "$ENGINE" </dev/null >/dev/null 2>"$T/err"
[ $? = 2 ] || fail "userfaultfd is forbidden: $(cat "$T/err")"
grep -q "userfaultfd is forbidden here: allow" "$T/err" || fail "userfaultfd is forbidden: $(cat "$T/err")"
without_userfaultfd "$CICADA" restore "$T/snap" --engine "$ENGINE" --name u --serial stdio </dev/null >"$CONSOLE" 2>"$T/err" &
VM=$!
children="$children $VM"
wait_console 60 "GUEST: round" 2
"$CICADA" stop u

# One that takes the connection and serves nothing.
rm -f "$T/pages"
python3 -c 'import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)' \
    "$T/pages" &
children="$children $!"
until [ -S "$T/pages" ]; do sleep 0.1; done
says "serves no page" "$T/snap" --uffd "$T/pages" --name silent
says "no handler at" "$T/snap" --uffd "$T/nowhere"
says "is a difference" "$T/diff" --uffd "$T/pages"
says "choose one" "$T/snap" --uffd "$T/pages" --eager
