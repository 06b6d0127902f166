#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots guests again and again for SOAK_MINUTES, with the self test, one to four vCPUs in turn, and counts what went
# wrong. The console of each failure is kept in build/soak.

set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
CACHE=${CICADA_CACHE:-.cache}
CICADA=${CICADA:-$BUILD/cicada}
tools/guest/kernel.sh && tools/guest/initramfs.sh boot || exit 1
mkdir -p "$BUILD/soak"

# A tenth of the time: random instructions against the bare CPU, other ones each time (tests/diff).
seed=$(date +%s)
ninja -C "$BUILD" --quiet tests/diff/diff || exit 1
CICADA_DIFF_SECONDS=$((${SOAK_MINUTES:-10} * 6 / 10)) CICADA_DIFF_SEED=$seed "$BUILD/tests/diff/diff" \
    int flow string x87 mmx sse avx priv seq lockstep >"$BUILD/soak/diff"
code=$?
tail -n 12 "$BUILD/soak/diff"
[ $code = 0 ] || [ $code = 77 ] || exit 1

# Migrations of a guest under load, and kill -9 of either side.
MIGRATIONS=20 BUILD=$BUILD tests/migrate/load.sh >"$BUILD/soak/migrate" 2>&1 &&
    KILLS=50 BUILD=$BUILD tests/migrate/kill.sh >>"$BUILD/soak/migrate" 2>&1 || {
    tail -n 20 "$BUILD/soak/migrate"
    exit 1
}

# A Debian guest under load through every way to go on elsewhere, and from engine to engine on true hardware.
SUSPENDS=100 ENGINES=20 MIGRATIONS=20 SNAPSHOTS=100 BUILD=$BUILD tests/state/loops.sh >"$BUILD/soak/loops" 2>&1 || {
    tail -n 20 "$BUILD/soak/loops"
    exit 1
}
SOAK=1 BUILD=$BUILD tests/kvm/switch.sh >"$BUILD/soak/switch" 2>&1
code=$?
[ $code = 0 ] || [ $code = 77 ] || {
    tail -n 20 "$BUILD/soak/switch"
    exit 1
}
tail -n 5 "$BUILD/soak/loops"
tail -n 3 "$BUILD/soak/switch"

end=$(($(date +%s) + ${SOAK_MINUTES:-10} * 60))
runs=0
failures=0
while [ "$(date +%s)" -lt $end ]; do
    runs=$((runs + 1))
    cpus=$((runs % 4 + 1))
    console=$BUILD/soak/console
    timeout -k 5 600 "$CICADA" run --engine xlate --cpus $cpus --memory 512M --kernel "$CACHE/kernel/vmlinuz" \
        --initrd "$CACHE/initramfs-boot.cpio" --serial stdio \
        --cmdline "console=ttyS0 cicada.mode=selftest cicada.cpus=$cpus" </dev/null >$console 2>&1
    code=$?
    if [ $code != 0 ] || ! grep -q "CICADA: selftest passed" $console; then
        failures=$((failures + 1))
        mv $console "$BUILD/soak/failure-$runs"
        echo "run $runs with $cpus vCPUs: exit code $code; see $BUILD/soak/failure-$runs"
    fi
done
echo "$runs runs, $failures failures"
[ $failures = 0 ]
