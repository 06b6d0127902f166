#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the two initramfs images, from static BusyBox and the files in tools/guest/files:
#   .cache/initramfs-plain.cpio  no kernel modules: the smallest way to userspace (benchmark)
#   .cache/initramfs-boot.cpio   with Debian's virtio modules: finds the disk and starts a distribution from it
# Uncompressed: the host page cache makes reading it cheap, and the guest need not inflate it.
#
# usage: initramfs.sh plain|boot

. "$(dirname "$0")/lib.sh"

variant=${1:-boot}
case $variant in plain | boot) ;; *) die "unknown variant '$variant'; plain or boot" ;; esac
need busybox cpio
files=$GUEST_DIR/files
busybox=$(command -v busybox)
[ "$variant" = plain ] || "$GUEST_DIR/kernel.sh"

WANTED="virtio_pci virtio_mmio virtio_blk virtio_net virtio-rng virtio_console autofs4 binfmt_misc"
name=initramfs-$variant.cpio
inputs="$0 $files/init $files/udhcpc $files/net-up $files/demo $files/selftest"
[ "$variant" = plain ] || inputs="$inputs $CACHE/kernel.key"
# shellcheck disable=SC2086 # the list is meant to split
KEY=$(key_of "$variant $(stat -L -c '%s %Y' "$busybox")" $inputs)
lock "$name"
is_fresh "$name" "$KEY" && exit 0
start=$(now_ms)
scratch
tree=$SCRATCH/tree

# The paths of the wanted modules with those they depend on, in an order in which insmod accepts them.
module_order() {
    awk -v wanted="$WANTED" '
        { path = $1; sub(":$", "", path); name = path; sub(".*/", "", name); sub("[.]ko.*", "", name)
          order[name] = ""; for (i = NF; i > 1; i--) order[name] = order[name] " " $i; order[name] = order[name] " " path }
        END { n = split(wanted, want, " ")
              for (w = 1; w <= n; w++) { m = split(order[want[w]], list, " ")
                  for (i = 1; i <= m; i++) if (!(list[i] in seen)) { seen[list[i]]; print list[i] } } }' "$1/modules.dep"
}

mkdir -p "$tree/bin" "$tree/cicada" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/root" "$tree/mnt" "$tree/etc"
ldd "$busybox" 2>&1 | grep -q 'not a dynamic' || die "$busybox is not static; install busybox-static"
cp -L "$busybox" "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh"
install -m 755 "$files/init" "$tree/init"
for f in udhcpc net-up demo selftest; do install -m 755 "$files/$f" "$tree/cicada/$f"; done
if [ "$variant" = boot ]; then
    dir=$CACHE/kernel/modules/lib/modules/$(cat "$CACHE/kernel/version")
    module_order "$dir" | while read -r path; do
        cp "$dir/$path" "$tree/cicada/"
        echo "/cicada/${path##*/}" >>"$tree/cicada/modules"
    done
    [ -s "$tree/cicada/modules" ] || die "found no modules in $dir"
fi
(cd "$tree" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$SCRATCH/$name"
publish "$SCRATCH/$name" "$name" "$KEY"
say "$name: $(du -h "$CACHE/$name" | cut -f1) ($(took "$start"))"
