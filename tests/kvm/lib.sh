# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# A true /dev/kvm on a host without one (sourced after tests/lib.sh): an outer QEMU TCG machine with AMD SVM and nested
# paging, whose initramfs holds KVM's modules, the program under test with its libraries, and the guest's files.

QEMU=qemu-system-x86_64
OUTER=$T/outer
OUTER_CPU=EPYC,+svm,+npt

# A shared library or program goes where it was, so that the loader finds it.
add_file() {
    mkdir -p "$OUTER/$(dirname "$1")"
    [ -e "$OUTER/$1" ] || cp -L "$1" "$OUTER/$1"
}

add_program() { # FILE AS: with the libraries it needs
    cp -L "$1" "$OUTER/$2"
    ldd "$1" 2>/dev/null | tr ' \t' '\n\n' | grep '^/' | while read -r lib; do add_file "$lib"; done
}

# outer_new: begins the tree of an outer guest.
outer_new() {
    images kernel plain boot
    MODULES=$CACHE/kernel/modules/lib/modules/$(cat "$CACHE/kernel/version")/kernel
    mkdir -p "$OUTER/bin" "$OUTER/proc" "$OUTER/sys" "$OUTER/dev" "$OUTER/tmp" "$OUTER/run" "$OUTER/modules" "$OUTER/g"
    cp -L "$(command -v busybox)" "$OUTER/bin/busybox"
    cp "$MODULES/virt/lib/irqbypass.ko" "$MODULES/arch/x86/kvm/kvm.ko" "$MODULES/arch/x86/kvm/kvm-amd.ko" \
        "$OUTER/modules/"
    ln "$KERNEL" "$OUTER/g/vmlinuz" 2>/dev/null || cp "$KERNEL" "$OUTER/g/vmlinuz"
    add_program "$CICADA" bin/cicada
    cat >"$OUTER/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
for m in irqbypass kvm kvm-amd; do insmod /modules/$m.ko; done
[ -c /dev/kvm ] && echo "OUTER: kvm is here"
grep -o "^kvm_[a-z]*" /proc/modules | sed 's/^/OUTER: /'
export XDG_RUNTIME_DIR=/run PATH=/bin HOME=/tmp
(while echo alive >/dev/ttyS1; do sleep 5; done) 2>/dev/null & # for outer_watch
sh /script
echo "OUTER: end"
poweroff -f
END
    chmod 755 "$OUTER/init"
}

outer_pack() {
    (cd "$OUTER" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$T/outer.cpio" || fail "cpio"
}

outer_once() { # SECONDS; OUTER_ARGS: more for QEMU
    : >"$T/beat"
    # shellcheck disable=SC2086 # a list
    timeout -k 5 "$1" $QEMU -M pc -accel tcg -cpu "$OUTER_CPU" -smp 1 -m 1536 -display none -serial stdio \
        -serial "file:$T/beat" -pidfile "$T/outer.pid" -no-reboot ${OUTER_ARGS-} \
        -kernel "$KERNEL" -initrd "$T/outer.cpio" -append "console=ttyS0 mitigations=off quiet panic=-1" \
        </dev/null 2>"$T/err" | stdbuf -oL tr -d '\r' >"$CONSOLE" &
    outer_watch $!
}

# outer_watch PID: waits for the outer machine, and ends it where nothing has come from it for a minute: it can lose its
# timer, and then not even the limits of its programs end it.
outer_watch() {
    seen=0
    since=0
    stalled=
    while kill -0 "$1" 2>/dev/null; do
        sleep 1
        beats=$(wc -c <"$T/beat")
        since=$((since + 1))
        [ "$beats" = "$seen" ] || since=0
        seen=$beats
        if [ "$seen" != 0 ] && [ $since = 60 ]; then
            stalled=yes
            kill "$(cat "$T/outer.pid")"
        fi
    done
    wait "$1"
}

# outer_run SECONDS: runs $OUTER/script in the outer guest, its console in $CONSOLE and in the log. Every inner `cicada`
# has its own limit, so a guest that hangs shows as its exit code 143. The outer kernel itself may crash: QEMU 7.2 can
# let an interrupt through right after #VMEXIT, while GIF is 0 and GS still the inner guest's (with more than one
# processor often, so it has one), or stand still. Nothing that a program does may do that to a machine, so these two alone
# are tried again.
outer_run() {
    command -v $QEMU >/dev/null || skip "$QEMU is not installed"
    outer_pack
    outer_once "$1"
    if grep -aq "^\[.*Kernel panic - not syncing" "$CONSOLE"; then
        echo "the outer kernel has crashed; once more"
        outer_once "$1"
    elif [ -n "$stalled" ]; then
        echo "the outer machine stood still for a minute; once more"
        cat "$CONSOLE"
        outer_once "$1"
    fi
    cat "$CONSOLE"
    shows "OUTER: kvm is here"
    shows "OUTER: end"
}

# tiny_guest_runs BED GUEST CHIPS: into the script of the outer guest. The console then has lines "GUEST CHIPS: ..." with
# what the guest wrote, and "GUEST CHIPS: exit CODE". (tests/guest/lib/common.sh)
tiny_guest_runs() {
    cat >>"$OUTER/script" <<END
busybox timeout 100 cicada run --engine kvm --kvm-opts irqchip=$3 --memory 64M --debug-exit \\
    --kernel /g/$2.elf --cmdline "$(beds_left_out "$1" "$2")" </dev/null >/tmp/out 2>/tmp/err
code=\$?
sed "s/^/$2 $3: /" /tmp/out /tmp/err
echo "$2 $3: exit \$code"
END
}
