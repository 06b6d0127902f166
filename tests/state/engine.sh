#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `cicada engine`: a tiny guest that writes the letters a to p in turn changes between kvm and xlate while it writes; no
# letter is missing or comes twice. What cannot be is refused, and the guest goes on. True hardware: tests/kvm/switch.sh.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../migrate/lib.sh"
. "$(dirname "$0")/../letters.sh"

# changed NAME ENGINE: and it writes on.
changed() {
    timeout 30 "$CICADA" engine "$1" "$2" >"$T/out" 2>"$T/err" || fail "$1 to $2: $(cat "$T/err")"
    grep -q "^$1 runs on $2 instead of [a-z]*: stood for [0-9.]* ms$" "$T/out" || fail "it says: $(cat "$T/out")"
    [ "$("$CICADA" ps | awk -v name="$1" '$1 == name { print $7 }')" = "$2" ] || fail "$1 does not run on $2"
    more_letters "$1" 20
}

# not_changed CODE NAME ENGINE TEXT: and it writes on.
not_changed() {
    timeout 30 "$CICADA" engine "$2" "$3" >"$T/out" 2>"$T/err"
    code=$?
    ends_with "$1"
    grep -q -- "$4" "$T/err" || fail "engine $2 $3 does not tell '$4' but: $(cat "$T/err")"
    [ ! -s "$T/out" ] || fail "engine $2 $3 wrote: $(cat "$T/out")"
    more_letters "$2" 20
}

letters_kernel "$T/kernel"
KERNEL=$T/kernel

ENGINE=xlate
source_vm x --memory 32M --boot multiboot --cpus 2
more_letters x 20
not_changed 1 x xlate "runs on xlate already"
not_changed 1 x qemu "'qemu' is no engine"
timeout 10 "$CICADA" engine x 2>"$T/err" && fail "no engine was named"
grep -q "which one" "$T/err" || fail "no engine was named: $(cat "$T/err")"
timeout 10 "$CICADA" engine nobody xlate 2>"$T/err" && fail "no VM was named"
grep -q "no VM 'nobody'" "$T/err" || fail "no VM was named: $(cat "$T/err")"
# The request without the device, and with something else for it.
SOCKET=$XDG_RUNTIME_DIR/cicada/x/control.sock python3 - <<'END' || fail "a request without /dev/kvm does not end as it should"
import array, json, os, socket, sys
def ask(*fds):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.environ["SOCKET"])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        s.sendmsg([b'{"action":"engine","engine":"kvm"}\n'], ancillary)
        return json.loads(s.makefile().readline())
bare, null = ask(), ask(os.open("/dev/null", os.O_RDWR))
print(bare, null)
sys.exit(bare["ok"] or "must come with the request" not in bare["error"] or
         null["ok"] or "version -1 of its interface" not in null["error"])
END
more_letters x 20

[ -w /dev/kvm ] || skip "no /dev/kvm here"
grep -qwE "vmx|svm" /proc/cpuinfo || not_changed 1 x kvm "cannot give the processor that the guest has seen: CPUID leaf 0x"
"$CICADA" stop x

ENGINE=kvm
for chips in kernel split user; do
    source_vm "$chips" --memory 32M --boot multiboot --kvm-opts "irqchip=$chips"
    more_letters "$chips" 20
    changed "$chips" xlate
    changed "$chips" kvm
    not_changed 1 "$chips" kvm "runs on kvm already"
    changed "$chips" xlate
    # Suspended on the engine that it has changed to, it goes on there.
    timeout 60 "$CICADA" suspend "$chips" --to "$T/$chips.saved" 2>"$T/err" || fail "suspend: $(cat "$T/err")"
    exit_of "$SOURCE" 20
    ends_with 6
    in_turn "$T/$chips.con"
done

source_vm paused --memory 32M --boot multiboot
more_letters paused 20
"$CICADA" pause paused
timeout 30 "$CICADA" engine paused xlate >"$T/out" 2>"$T/err" || fail "paused: $(cat "$T/err")"
before=$(wc -c <"$T/paused.con")
sleep 0.5
[ "$(wc -c <"$T/paused.con")" = "$before" ] || fail "a paused guest goes on when its engine is changed"
"$CICADA" resume paused
more_letters paused 20
"$CICADA" reset paused
more_letters paused 20
"$CICADA" stop paused

source_vm debugged --memory 32M --boot multiboot --gdb "unix:$T/gdb"
more_letters debugged 20
not_changed 1 debugged xlate "debugger"
"$CICADA" stop debugged
