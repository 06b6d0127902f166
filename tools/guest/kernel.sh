#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts Debian's cloud kernel, unmodified, into .cache/kernel: vmlinuz, config, modules/ and version.
# The package is fetched and unpacked, never installed.

. "$(dirname "$0")/lib.sh"

KEY=$(key_of "kernel $SUITE" "$0")
lock kernel
is_fresh kernel "$KEY" && exit 0
need dpkg-deb
start=$(now_ms)
scratch

# The image package that the newest linux-image-cloud-amd64 depends on; empty where the host's apt has none.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1
}

fetch_with_apt() {
    pkg=$(kernel_package)
    if [ -z "$pkg" ] && [ "$(id -u)" = 0 ]; then
        apt-get update >"$SCRATCH/log" 2>&1 || true
        pkg=$(kernel_package)
    fi
    [ -n "$pkg" ] || return 1
    (cd "$SCRATCH" && apt-get download "$pkg" >>log 2>&1) || return 1
    dpkg-deb -x "$SCRATCH"/linux-image-*.deb "$SCRATCH/root"
}

# For hosts whose own archive has no such package (Ubuntu, or apt without lists and without root).
fetch_with_mmdebstrap() {
    need mmdebstrap
    mmdebstrap --quiet --variant=extract --include=linux-image-cloud-amd64 "$SUITE" "$SCRATCH/root.tar" \
        >>"$SCRATCH/log" 2>&1 || return 1
    mkdir -p "$SCRATCH/root"
    tar -xf "$SCRATCH/root.tar" -C "$SCRATCH/root" ./boot ./lib/modules
}

fetch_with_apt || fetch_with_mmdebstrap || {
    tail -n 5 "$SCRATCH/log" >&2
    die "cannot fetch linux-image-cloud-amd64"
}

out=$SCRATCH/out
mkdir -p "$out/modules/lib"
mv "$SCRATCH"/root/boot/vmlinuz-* "$out/vmlinuz"
mv "$SCRATCH"/root/boot/config-* "$out/config"
mv "$SCRATCH/root/lib/modules" "$out/modules/lib/modules"
ls "$out/modules/lib/modules" >"$out/version"
if command -v depmod >/dev/null 2>&1; then
    depmod -b "$out/modules" "$(cat "$out/version")"
else
    busybox depmod -b "$out/modules" "$(cat "$out/version")" >/dev/null
fi
version=$(cat "$out/version")
publish "$out" kernel "$KEY"
say "kernel: $version ($(took "$start"))"
