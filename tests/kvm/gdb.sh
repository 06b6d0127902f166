#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 300
# gdb on engine kvm with true hardware virtualization: registers, memory, single steps, Ctrl-C; and the guest's own INT3
# and steps stay its own. No breakpoints: QEMU's VMRUN loads DR7 without arming what it enables, and INT3 is not
# intercepted as an exception. tests/debug/kvm.sh and unit/kvm_debug have those, where there is a /dev/kvm. gdb runs out
# here; a serial port of the outer machine takes its packets in.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../debug/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
[ -n "${SOAK:-}" ] || skip "the way of the packets into the emulated outer machine loses them now and then; SOAK=1 runs it"
command -v "$QEMU" >/dev/null || skip "$QEMU is not installed"
build_guests debuggee
outer_new
cp "$GUESTS/debuggee.elf" "$OUTER/g/"
cat >"$OUTER/script" <<'END'
ifconfig lo up
stty -F /dev/ttyS1 raw -echo
busybox timeout 100 cicada run --engine kvm --gdb tcp:127.0.0.1:1234,wait --memory 64M --debug-exit \
    --kernel /g/debuggee.elf --cmdline spin </dev/null >/tmp/out 2>/tmp/err &
vm=$!
sleep 1
busybox nc 127.0.0.1 1234 </dev/ttyS1 >/dev/ttyS1 &
echo "OUTER: relay is here"
wait $vm
code=$?
sed "s/^/debuggee: /" /tmp/out /tmp/err
echo "debuggee: exit $code"
END
OUTER_ARGS="-serial unix:$T/relay,server=on,wait=off"
outer_run 150 &
children="$children $!"
tries=900
until grep -aqF "OUTER: relay is here" "$CONSOLE" 2>/dev/null; do
    [ $tries -gt 0 ] || fail "the outer machine did not come up"
    sleep 0.1
    tries=$((tries - 1))
done
gdb_script 100 "$GUESTS/debuggee.debug" "$T/relay" <"$ROOT/tests/debug/bed.gdb"
wait
said "^rip +0x10000c "
said "^rip +0x10000e "
said "received signal SIGINT"
said "^#0 .* spin \(\)"
said "^#1 .* test_spin \(\)"
said "Thread 1 \"vCPU 0\" \(kernel\)"
said "= 0x55667788$"
said "detached"
shows "debuggee: ok own_traps"
shows "debuggee: 4 ok, 0 failed"
shows "debuggee: exit 64"
