#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boot benchmark: CPU time from start to the end of a guest that reaches userspace and powers off at once, beside QEMU's.
# Text to stdout, JSON to build/bench-boot.json. RUNS=5 and CASES="cicada-bzimage ..." change what is run.

set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
tools/guest/kernel.sh
tools/guest/vmlinux.sh
tools/guest/initramfs.sh plain
exec python3 bench/boot.py --cicada "${CICADA:-$BUILD/cicada}" --cache "${CICADA_CACHE:-.cache}" \
    --runs "${RUNS:-5}" --json "$BUILD/bench-boot.json" ${CASES:+--cases "$CASES"}
