# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# Shared by the tests of migration (sourced after ../lib.sh): VMs named by a letter, each with its console in
# $T/NAME.con and what it says in $T/NAME.err.

XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir -m 700 "$XDG_RUNTIME_DIR"

# source_vm NAME ARGUMENT...: a VM that may be migrated; its process in $SOURCE.
source_vm() {
    vm_name=$1
    shift
    "$CICADA" run --engine "$ENGINE" --name "$vm_name" --kernel "$KERNEL" --serial "file:$T/$vm_name.con" "$@" \
        </dev/null >"$T/$vm_name.out" 2>"$T/$vm_name.err" &
    SOURCE=$!
    children="$children $SOURCE"
}

# target_vm NAME ENDPOINT ARGUMENT...: waits for a migration; its process in $TARGET, its address in $AT.
target_vm() {
    vm_name=$1 at=$2
    shift 2
    "$CICADA" receive "$at" --engine "$ENGINE" --name "$vm_name" --serial "file:$T/$vm_name.con" "$@" \
        </dev/null >"$T/$vm_name.out" 2>"$T/$vm_name.err" &
    TARGET=$!
    children="$children $TARGET"
    tries=100
    until AT=$(sed -n 's/^cicada: waiting at //p' "$T/$vm_name.err" 2>/dev/null) && [ -n "$AT" ]; do
        [ $tries -gt 0 ] || fail "$vm_name does not wait for a migration: $(cat "$T/$vm_name.err")"
        sleep 0.1
        tries=$((tries - 1))
    done
}

# wait_file SECONDS FILE TEXT: until the file holds a line with TEXT.
wait_file() {
    tries=$(($1 * 10))
    until grep -aqF -- "$3" "$2" 2>/dev/null; do
        [ $tries -gt 0 ] || fail "$2 did not show '$3' within $1 s: $(tail -n 5 "$2" 2>/dev/null; cat "$T"/*.err)"
        sleep 0.1
        tries=$((tries - 1))
    done
}

# state NAME: what `ps` says, "gone" where there is no such VM.
state() {
    "$CICADA" ps --json | NAME=$1 python3 -c '
import json, os, sys
print(next((vm["state"] for vm in json.load(sys.stdin) if vm["name"] == os.environ["NAME"]), "gone"))'
}

# exit_of PROCESS SECONDS: its exit code in $code.
exit_of() {
    tries=$(($2 * 10))
    while kill -0 "$1" 2>/dev/null && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    ! kill -0 "$1" 2>/dev/null || fail "process $1 did not end within $2 s"
    wait "$1"
    code=$?
}

# last_tick FILE: the last number that the ticking guest printed whole.
last_tick() { sed -n 's/^tick \([0-9]*\)\r*$/\1/p' "$1" 2>/dev/null | tail -n 1; }

# A guest that counts aloud, and checks patterns in its memory all the time.
ticking_initrd() {
    cat >"$T/script" <<'END'
for f in 1 2 3 4; do dd if=/dev/urandom of=/tmp/$f bs=64k count=16 2>/dev/null; done
md5sum /tmp/[1-4] >/tmp/sums
( while :; do md5sum -c -s /tmp/sums || echo "MEMORY WRONG"; cp /tmp/1 /tmp/5; cmp /tmp/1 /tmp/5 || echo "COPY WRONG"; done ) &
i=0
while :; do echo "tick $i"; i=$((i + 1)); usleep 20000; done
END
    with_script "$PLAIN" "$T/script" "$T/initrd"
}
TICKING="console=ttyS0 cicada.mode=script"

# A guest under load: it copies disk $T/a to disk $T/b and reads it back, keeps checksums of its memory, and fetches files
# by network. It says "copy N" and "fetched N", or that something is WRONG.
loaded_initrd() {
    dd if=/dev/urandom of="$T/a" bs=1M count=24 2>/dev/null
    truncate -s 24M "$T/b"
    sum=$(sha256sum <"$T/a" | cut -d ' ' -f 1)
    mkdir "$T/www"
    head -c 300000 /dev/urandom >"$T/www/file"
    web=$(sha256sum <"$T/www/file" | cut -d ' ' -f 1)
    serve "$T/www"
    cat >"$T/script" <<END
sh /cicada/net-up || exit 1
dd if=/dev/urandom of=/tmp/memory bs=1M count=16 2>/dev/null
memory=\$(sha256sum </tmp/memory)
( while :; do [ "\$(sha256sum </tmp/memory)" = "\$memory" ] || echo "MEMORY WRONG"; done ) &
( n=0; while :; do
    timeout 5 wget -q -O /tmp/file http://10.0.2.2:$PORT/file && case \$(sha256sum </tmp/file) in
    $web*) n=\$((n + 1)); echo "fetched \$n" ;; *) echo "NETWORK WRONG" ;; esac
    sleep 0.2
done ) &
n=0
while :; do
    dd if=/dev/zero of=/dev/vdb bs=64k count=384 conv=notrunc 2>/dev/null
    dd if=/dev/vda of=/dev/vdb bs=64k count=200 conv=notrunc oflag=direct 2>/dev/null &
    dd if=/dev/vda of=/dev/vdb bs=4k skip=3200 seek=3200 conv=notrunc 2>/dev/null
    wait \$!
    sync
    echo 3 >/proc/sys/vm/drop_caches
    case \$(sha256sum </dev/vdb) in $sum*) n=\$((n + 1)); echo "copy \$n" ;; *) echo "DISK WRONG" ;; esac
done
END
    with_script "$BOOT" "$T/script" "$T/initrd"
}
LOADED="console=ttyS0 quiet cicada.mode=script"

# last NAME WORD: the last number behind that word on its console.
last() { sed -n "s/^$2 \([0-9]*\)\r*$/\1/p" "$T/$1.con" | tail -n 1; }

nothing_wrong() {
    ! grep -aE "WRONG|BUG:|Oops|soft lockup|rcu.*stall|Call Trace" "$T"/*.con || fail "the guest complains"
}
