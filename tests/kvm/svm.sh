#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 400
# Debian's kernel boots to userspace on --engine kvm with true hardware virtualization (kvm_amd): 1 and 2 vCPUs, a disk
# that is read and written with doorbells that leave KVM_RUN and that do not, a reset, the interrupt controllers in the
# kernel, in user space and half of each, with level-triggered interrupts and with those of the PIC; `auto` takes kvm; a
# guest that writes all the time moves by the dirty ring. The unit tests of the engine run there too: the bed whose word
# counts more than the development machine's.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
outer_new
dd if=/dev/urandom of="$OUTER/g/disk" bs=64k count=32 2>/dev/null
sum=$(sha256sum <"$OUTER/g/disk" | cut -d ' ' -f 1)
written=$({ head -c 4096 /dev/zero && tail -c +4097 "$OUTER/g/disk"; } | sha256sum | cut -d ' ' -f 1)
cat >"$T/script" <<'END'
echo "inner: $(nproc) processors, $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
if [ -b /dev/vda ]; then
    echo "inner: disk $(sha256sum </dev/vda)"
    dd if=/dev/vda of=/dev/null bs=4k count=200 iflag=direct 2>/dev/null
    dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc oflag=direct 2>/dev/null
    sync
fi
END
with_script "$BOOT" "$T/script" "$OUTER/g/initrd"
cat >"$T/script" <<'END'
mount -t tmpfs none /mnt
dd if=/dev/urandom of=/mnt/a bs=1M count=24 2>/dev/null
sum=$(sha256sum </mnt/a)
while cp /mnt/a /mnt/b; do
    [ "$(sha256sum </mnt/b)" = "$sum" ] && echo "inner: right" || echo "inner: wrong"
done
END
with_script "$BOOT" "$T/script" "$OUTER/g/load"
cp "$PLAIN" "$OUTER/g/plain"
for unit in kvm_state kvm_run kvm_chips kvm_lazy engine_move; do add_program "$BUILD/tests/unit/test_$unit" "g/test_$unit"; done
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
for unit in kvm_state kvm_run kvm_chips kvm_lazy engine_move; do
    busybox timeout 100 /g/test_$unit >/tmp/out 2>&1
    code=$?
    sed "s/^/$unit: /" /tmp/out
    echo "$unit: exit $code"
done
run one --engine kvm --initrd /g/initrd --cmdline "$mode=script"
run disk --engine kvm --initrd /g/initrd --cmdline "$mode=script" --cpus 2 --disk /g/disk
echo "disk: now $(od -An -tx1 -N4 /g/disk)"
run user --engine kvm --kvm-opts irqchip=user --initrd /g/initrd --cmdline "$mode=script" --cpus 2
run split --engine kvm --kvm-opts irqchip=split --initrd /g/initrd --cmdline "$mode=script" --cpus 2
run bells --engine kvm --kvm-opts ioeventfd=on --initrd /g/initrd --cmdline "$mode=script" --disk /g/disk
run levels --engine kvm --kvm-opts irqchip=split --initrd /g/initrd --cmdline "$mode=script pci=nomsi" --disk /g/disk
run pic --engine kvm --kvm-opts irqchip=split --initrd /g/initrd --cmdline "$mode=script noapic" --disk /g/disk
run reset --engine kvm --no-reboot --initrd /g/plain --cmdline "$mode=reboot"
run auto --engine auto --initrd /g/plain --cmdline "$mode=poweroff"
run again --engine auto --initrd /g/plain --cmdline "$mode=poweroff"

wait_for() { # TEXT FILE
    for _ in $(seq 60); do grep -q "$1" "$2" 2>/dev/null && return; sleep 1; done
}
cicada run --name source --engine kvm --kvm-opts dirty=ring --memory 256M --kernel /g/vmlinuz --initrd /g/load \
    --serial file:/tmp/source --cmdline "$mode=script" </dev/null 2>/tmp/err &
wait_for right /tmp/source
busybox timeout 60 cicada receive unix:/tmp/socket --name target --serial file:/tmp/target </dev/null 2>/tmp/err &
wait_for waiting /tmp/err
busybox timeout 60 cicada migrate source --to unix:/tmp/socket --force
echo "ring: migrate $?"
wait_for right /tmp/target
sed 's/^/ring: /' /tmp/target | head -n 3
cicada stop target
END
outer_run 200
counter() { sed -n "s/^$1: .*run: info: $2: //p" "$CONSOLE"; }
for name in kvm_state kvm_run kvm_chips engine_move one disk user split bells levels pic auto again; do shows "$name: exit 0"; done
grep -aq "BED: \|SKIP:" "$CONSOLE" && fail "this is no true KVM"
shows "one: inner: 1 processors, kvm-clock"
shows "disk: inner: 2 processors, kvm-clock"
shows "disk: inner: disk $sum"
shows "disk: now  00 00 00 00"
shows "user: inner: 2 processors, kvm-clock"
shows "split: inner: 2 processors, kvm-clock"
for name in bells levels pic; do shows "$name: inner: disk $written"; done
grep -aq "levels: .*eois: [1-9]" "$CONSOLE" || fail "no EOI of a level-triggered interrupt came out of KVM"
grep -aq "pic: .*interrupts: [1-9]" "$CONSOLE" || fail "no interrupt of the PIC went into KVM"
[ "$(counter disk mmio)" -gt $(($(counter bells mmio) + 150)) ] || fail "doorbells leave KVM_RUN in spite of ioeventfd=on"
shows "ring: migrate 0"
shows "ring: inner: right"
grep -aq "inner: wrong" "$CONSOLE" && fail "a page that was written has not gone over"
shows "reset: exit 4"
grep -aq "auto: .*engine kvm: .*measured now" "$CONSOLE" || fail "auto did not take kvm"
grep -aq "again: .*engine kvm: .*measured earlier" "$CONSOLE" || fail "the measurement was not kept"
grep -aq "CICADA: userspace reached" "$CONSOLE" || fail "no userspace"
