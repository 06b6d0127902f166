#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 400
# Debian's kernel boots to userspace on --engine kvm with true hardware virtualization (kvm_amd): 1 and 2 vCPUs, a disk
# that is read and written, a reset, the interrupt controllers in the kernel and in user space; `auto` takes kvm. The
# unit tests of the engine run there too: the bed whose word counts more than the development machine.s.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
outer_new
dd if=/dev/urandom of="$OUTER/g/disk" bs=64k count=32 2>/dev/null
sum=$(sha256sum <"$OUTER/g/disk" | cut -d ' ' -f 1)
cat >"$T/script" <<'END'
echo "inner: $(nproc) processors, $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
if [ -b /dev/vda ]; then
    echo "inner: disk $(sha256sum </dev/vda)"
    dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc oflag=direct 2>/dev/null
    sync
fi
END
with_script "$BOOT" "$T/script" "$OUTER/g/initrd"
cp "$PLAIN" "$OUTER/g/plain"
for unit in kvm_state kvm_run kvm_chips engine_move; do add_program "$BUILD/tests/unit/test_$unit" "g/test_$unit"; done
cat >"$OUTER/script" <<'END'
run() { # NAME ARGUMENT...
    name=$1
    shift
    busybox timeout 100 cicada run -v --memory 256M --kernel /g/vmlinuz "$@" </dev/null >/tmp/out 2>/tmp/err
    code=$?
    sed "s/^/$name: /" /tmp/out /tmp/err
    echo "$name: exit $code"
}
mode="console=ttyS0 quiet cicada.mode"
for unit in kvm_state kvm_run kvm_chips engine_move; do
    busybox timeout 100 /g/test_$unit >/tmp/out 2>&1
    code=$?
    sed "s/^/$unit: /" /tmp/out
    echo "$unit: exit $code"
done
run one --engine kvm --initrd /g/initrd --cmdline "$mode=script"
run disk --engine kvm --initrd /g/initrd --cmdline "$mode=script" --cpus 2 --disk /g/disk
echo "disk: now $(od -An -tx1 -N4 /g/disk)"
run user --engine kvm --kvm-opts irqchip=user --initrd /g/initrd --cmdline "$mode=script" --cpus 2
run reset --engine kvm --no-reboot --initrd /g/plain --cmdline "$mode=reboot"
run auto --engine auto --initrd /g/plain --cmdline "$mode=poweroff"
run again --engine auto --initrd /g/plain --cmdline "$mode=poweroff"
END
outer_run 190
for name in kvm_state kvm_run kvm_chips engine_move one disk user auto again; do shows "$name: exit 0"; done
grep -aq "BED: \|SKIP:" "$CONSOLE" && fail "this is no true KVM"
shows "one: inner: 1 processors, kvm-clock"
shows "disk: inner: 2 processors, kvm-clock"
shows "disk: inner: disk $sum"
shows "disk: now  00 00 00 00"
shows "user: inner: 2 processors, kvm-clock"
shows "reset: exit 4"
grep -aq "auto: .*engine kvm: .*measured now" "$CONSOLE" || fail "auto did not take kvm"
grep -aq "again: .*engine kvm: .*measured earlier" "$CONSOLE" || fail "the measurement was not kept"
grep -aq "CICADA: userspace reached" "$CONSOLE" || fail "no userspace"
