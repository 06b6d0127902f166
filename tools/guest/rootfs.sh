#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds a Debian root disk, an ext4 file system without partitions, from Debian's packages:
#   .cache/debian-small.ext4    Debian's essential packages and apt; starts with init=/sbin/cicada-init
#   .cache/debian-systemd.ext4  the same with systemd and udev
#   .cache/debian-test.ext4     the same with compilers, interpreters and load generators, for the test suites
# Root has no password: these are images for a demonstration and for tests.
#
# usage: rootfs.sh small|systemd|test

. "$(dirname "$0")/lib.sh"

variant=${1:-small}
packages=busybox
size=1G
case $variant in
small) ;;
systemd | test)
    packages="$packages,systemd-sysv,udev,dbus,iproute2,kmod"
    [ "$variant" = systemd ] || {
        packages="$packages,gcc,libc6-dev,make,python3,perl,openssl,sqlite3,stress-ng,ca-certificates,curl,wget,e2fsprogs,xz-utils"
        size=3G
    }
    ;;
*) die "unknown variant '$variant'; small, systemd or test" ;;
esac

name=debian-$variant.ext4
files=$GUEST_DIR/files
KEY=$(key_of "$variant $packages $size $SUITE" "$0" "$GUEST_DIR/customize.sh" "$files/demo" "$files/net-up" \
    "$files/udhcpc" "$files/cicada-init" "$files/cicada-demo.service")
lock "$name"
is_fresh "$name" "$KEY" && exit 0
need mmdebstrap mke2fs
start=$(now_ms)
scratch

mode=root
fake=
if [ "$(id -u)" != 0 ]; then
    need fakeroot
    mode=unshare
    fake=fakeroot
fi
SOURCE_DATE_EPOCH=1700000000
export SOURCE_DATE_EPOCH
mmdebstrap --quiet --mode=$mode --variant=minbase --include="$packages" --format=tar \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook="$GUEST_DIR/customize.sh \"\$1\" $variant" \
    "$SUITE" "$SCRATCH/root.tar" 2>"$SCRATCH/log" || {
    tail -n 20 "$SCRATCH/log" >&2
    die "mmdebstrap failed"
}
# fakeroot lets a plain user keep the owners that are in the archive.
# shellcheck disable=SC2016 # the inner shell expands these
$fake sh -c 'mkdir "$1/tree" && tar -C "$1/tree" -xpf "$1/root.tar" && chmod 755 "$1/tree" &&
    mke2fs -q -t ext4 -L root -m 1 -d "$1/tree" "$1/root.ext4" "$2" >/dev/null && rm -rf "$1/tree"' sh "$SCRATCH" "$size"
publish "$SCRATCH/root.ext4" "$name" "$KEY"
say "$name: $(du -h "$CACHE/$name" | cut -f1) ($(took "$start"))"
