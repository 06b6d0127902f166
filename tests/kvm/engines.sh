#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 420
# Both engines are the same machine, with true hardware virtualization (kvm_amd) behind one of them: a running Debian
# kernel is saved on one and goes on on the other and back, with 1 and 2 vCPUs and with an application processor that
# was never started; and one command line gives one transcript on both.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
[ -n "${SOAK:-}" ] || skip "takes minutes, and the emulated outer machine froze in one run of three; SOAK=1 runs it"
# QEMU TCG does not intercept XSETBV, so KVM does not learn of the guest's XCR0: without XSAVE it has none.
OUTER_CPU=$OUTER_CPU,-xsave
TICKS=25
outer_new
echo 'echo "inner: $(nproc) processors"' >"$T/script"
with_script "$PLAIN" "$T/script" "$OUTER/g/short"
cat >>"$T/script" <<END
i=0
while [ \$i -lt $TICKS ]; do
    i=\$((i + 1))
    echo "inner: tick \$i"
    sleep 0.3
done
dmesg | grep -i "stall\|skewed\|lockup\|call trace\|oops" | sed 's/^/inner: BAD /'
END
with_script "$PLAIN" "$T/script" "$OUTER/g/ticks"
add_program "$BUILD/tests/kvm/move" g/move
cat >"$OUTER/script" <<'END'
move() { # NAME CPUS CMDLINE ENGINE...
    name=$1 cpus=$2 line=$3
    shift 3
    busybox timeout 100 /g/move 5 "$cpus" /g/vmlinuz /g/ticks "console=ttyS0 quiet cicada.mode=script $line" "$@" \
        </dev/null >/tmp/out 2>/tmp/err
    code=$?
    sed "s/^/$name: /" /tmp/out /tmp/err
    echo "$name: exit $code"
}
move there 1 "" kvm xlate kvm
move back 2 "" xlate kvm xlate
move up 2 maxcpus=1 kvm xlate
for engine in xlate kvm; do
    busybox timeout 100 cicada run --engine $engine --memory 128M --kernel /g/vmlinuz --initrd /g/short \
        --cmdline "console=ttyS0 cicada.mode=script" </dev/null >/tmp/out 2>/tmp/err
    code=$?
    sed "s/^/$engine: /" /tmp/out /tmp/err
    echo "$engine: exit $code"
done
END
outer_run 390
grep -aq "inner: BAD" "$CONSOLE" && fail "a guest that moved complains"
moved() { # NAME FROM TO
    grep -aq "^$1: move: .* from $2 to $3" "$CONSOLE" || fail "$1 did not move from $2 to $3"
}
moved there kvm xlate
moved there xlate kvm
moved back xlate kvm
moved back kvm xlate
moved up kvm xlate
for name in there back up; do
    shows "$name: exit 0"
    # Every tick once and in order, whenever it moved.
    grep -a "^$name: inner: tick" "$CONSOLE" | sed 's/.* //' >"$T/ticks"
    seq $TICKS | cmp -s - "$T/ticks" || fail "$name: ticks are missing or double: $(tr '\n' ' ' <"$T/ticks")"
done
for engine in xlate kvm; do
    shows "$engine: exit 0"
    # Times, frequencies and what follows from them; addresses that are chosen by chance. Sorted, because messages of
    # the kernel's threads come in another order on a machine of another speed.
    sed -n "s/^$engine: //p" "$CONSOLE" | sed -E 's/^\[ *[0-9.]+\] //
        /read-back delay/d
        s/(sched offset of) [0-9]+/\1 N/
        s/[0-9.]+ (MHz|BogoMIPS)/N \1/g
        s/lpj=[0-9]+/lpj=N/
        s/(tsc.*max_cycles: ).*/\1N/
        s/audit\([0-9.]+:/audit(N:/
        s/(setting system clock to).*/\1 N/
        s/(Marking stable).*/\1 N/
        s/(VM booted in|took) [0-9.]+/\1 N/' | sort >"$T/$engine"
done
[ "$(wc -l <"$T/kvm")" -gt 150 ] || fail "the transcript is short"
diff "$T/xlate" "$T/kvm" || fail "the transcripts of the engines differ"
