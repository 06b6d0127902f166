#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --engine kvm where it cannot be had: no device, no permission, a device that is none, options that make no sense. Each
# a message with the way out and exit code 1; and `auto` runs the guest all the same.
. "$(dirname "$0")/../lib.sh"
images kernel plain
[ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null || skip "needs root and mount namespaces"
quiet="console=ttyS0 quiet cicada.mode=poweroff"

# in_dev SCRIPT ARGUMENT...: cicada in a mount namespace whose /dev SCRIPT may change.
cat >"$T/in_dev" <<'END'
#!/bin/sh
set -e
export XDG_RUNTIME_DIR="$T/run-$DEV" # of one user each
mkdir -p "$T/dev"
mkdir -p -m 777 "$XDG_RUNTIME_DIR"
mount -t tmpfs dev "$T/dev"
for f in null zero urandom; do touch "$T/dev/$f" && mount --bind "/dev/$f" "$T/dev/$f"; done
case $DEV in
file) echo none >"$T/dev/kvm" ;;
forbidden) mknod -m 000 "$T/dev/kvm" c 10 232 ;;
esac
mount --move "$T/dev" /dev
[ "$DEV" != forbidden ] || exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all -- "$REAL" "$@"
exec "$REAL" "$@"
END
chmod 755 "$T" "$T/in_dev"
export T REAL="$CICADA"
cat >"$T/cicada" <<'END'
#!/bin/sh
exec unshare -m "$T/in_dev" "$@"
END
chmod 755 "$T/cicada"
CICADA=$T/cicada

ENGINE=kvm
export DEV=none
refused "no hardware virtualization here" --kernel "$KERNEL"
grep -q "engine xlate" "$T/err" || fail "the message does not name the way out"
export DEV=file
refused "/dev/kvm" --kernel "$KERNEL"
export DEV=forbidden
refused "this user may not" --kernel "$KERNEL"
all_refused

# auto says why it takes xlate, and the guest runs.
export DEV=none
ENGINE=auto
vm 60 -v --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "$quiet"
ends_with 0
shows "CICADA: userspace reached"
grep -q "engine xlate: .*no hardware virtualization here" "$T/err" || fail "auto does not say why"
[ ! -e "$T/run-none/cicada/.kvm-speed" ] || fail "a speed was noted of a device that is not there"

CICADA=$REAL
[ -c /dev/kvm ] || exit 0
ENGINE=kvm
for switch in irqchip=none ioeventfd=maybe dirty=no irqchip=split,dirty; do
    refused "${switch##*,}" --kernel "$KERNEL" --kvm-opts $switch
done
refused "cpus" --kernel "$KERNEL" --cpus 100000
# Memory that cannot be had.
cat >"$T/small" <<END
#!/bin/sh
ulimit -v 200000
exec "$REAL" "\$@"
END
chmod 755 "$T/small"
all_refused
CICADA=$T/small
vm 30 --kernel "$KERNEL" --memory 1G
CICADA=$REAL
ends_with 2
grep -q "1024 MiB of guest memory" "$T/err" || fail "the message does not name the memory"

# A guest that KVM cannot run: a multiboot kernel (header: magic, flags, checksum, addresses) that jumps to where no
# memory is. The registers are logged, the message says what KVM says, and the VM ends with the code of a VMM's failure.
{
    printf '\002\260\255\033\000\000\001\000\376\117\121\344\000\000\020\000\000\000\020\000\000\000\000\000'
    printf '\000\000\000\000\040\000\020\000'
    printf '\270\000\000\000\200\377\340' # mov eax, 80000000h; jmp eax
} >"$T/lost"
vm 30 --kernel "$T/lost" --boot multiboot --memory 64M
ends_with 5
grep -q "KVM internal error\|KVM_RUN" "$T/err" || fail "the message does not say what failed"
grep -q "rip=.*80000000" "$T/err" || fail "the registers are not shown"
