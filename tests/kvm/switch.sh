#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 900
# A running Debian kernel changes between kvm, with true hardware virtualization (kvm_amd) behind it, and xlate, in place:
# SWITCHES times each, born on either, with one and with two vCPUs, the interrupt controllers in the kernel and in user
# space. All the while it compares checksums of its memory, and counts; no number is missing.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
[ -n "${SOAK:-}" ] || skip "takes minutes in an emulated machine; SOAK=1 runs it"
SWITCHES=${SWITCHES:-20}
# QEMU TCG does not intercept XSETBV, so KVM does not learn of the guest's XCR0: without XSAVE it has none.
OUTER_CPU=$OUTER_CPU,-xsave
outer_new
cat >"$T/script" <<'END'
for f in 1 2 3 4; do dd if=/dev/urandom of=/tmp/$f bs=64k count=8 2>/dev/null; done
md5sum /tmp/[1-4] >/tmp/sums
(while :; do md5sum -c -s /tmp/sums || echo "inner: MEMORY WRONG"; cp /tmp/1 /tmp/5; cmp /tmp/1 /tmp/5 || echo "inner: COPY WRONG"; sleep 0.05; done) &
i=0
while :; do
    echo "inner: tick $i"
    i=$((i + 1))
    sleep 0.1
    dmesg -c | grep -i "stall\|skewed\|lockup\|call trace\|oops\|kernel BUG" | sed 's/^/inner: BAD /'
done
END
with_script "$PLAIN" "$T/script" "$OUTER/g/ticks"
cat >"$T/functions" <<'END'
more() { # NAME COUNT: so many ticks after now
    want=$(($(grep -c "inner: tick" /tmp/$1) + $2)) tries=0
    while [ "$(grep -c "inner: tick" /tmp/$1)" -lt $want ]; do
        tries=$((tries + 1))
        [ $tries -lt 900 ] || { echo "$1: stands"; return 1; }
        sleep 0.1
    done
}
change() { # NAME ENGINE
    timeout 60 cicada engine $1 $2 >/tmp/said 2>&1 || { echo "$1: NOT CHANGED to $2: $(cat /tmp/said)"; return 1; }
    echo "$1: $(cat /tmp/said)"
    more $1 4
}
run() { # NAME ENGINE OTHER ARGUMENT...
    name=$1 engine=$2 other=$3
    shift 3
    : >/tmp/$name
    cicada run --name $name --engine $engine --memory 96M --kernel /g/vmlinuz --initrd /g/ticks --serial file:/tmp/$name \
        --cmdline "console=ttyS0 quiet cicada.mode=script" "$@" </dev/null >/tmp/out 2>/tmp/err &
    vm=$!
    n=0
    more $name 3 && while [ $n -lt $SWITCHES ]; do
        change $name $other && change $name $engine || break
        n=$((n + 2))
    done
    cicada stop $name
    wait $vm
    echo "$name: exit $?, $n changes"
    sed "s/^/$name: /" /tmp/err
    tr -d '\r' </tmp/$name | grep -v "inner: tick" | sed "s/^/$name: says /"
    tr -d '\r' </tmp/$name | sed -n "s/^inner: tick /$name: /p"
}
END
# An outer machine for each: one that stands still costs less (tests/kvm/lib.sh).
switches() { # NAME ENGINE OTHER ARGUMENT...
    { echo "SWITCHES=$SWITCHES" && cat "$T/functions" && echo "run $*"; } >"$OUTER/script"
    outer_run 280
    ! grep -aE "WRONG|BAD|NOT CHANGED" "$CONSOLE" || fail "the guest complains"
    shows "$1: exit 0, $SWITCHES changes"
    sed -n "s/^$1: \([0-9]*\)$/\1/p" "$CONSOLE" >"$T/ticks"
    seq 0 $(($(wc -l <"$T/ticks") - 1)) | cmp -s - "$T/ticks" || fail "$1: ticks are missing or double"
    sed -n "s/^$1: .* stood for \([0-9.]*\) ms/\1/p" "$CONSOLE" | sort -n | awk -v name="$1" '
        { t[NR] = $1 }
        END { print name ": stood for " t[int((NR + 1) / 2)] " ms (median), " t[NR] " (worst of " NR ")" }' >>"$T/figures"
}
switches born-on-kvm kvm xlate
switches born-on-xlate xlate kvm --cpus 2
switches chips-in-user-space kvm xlate --kvm-opts irqchip=user
cat "$T/figures"
