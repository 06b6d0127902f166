#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap runs this on the unpacked tree of a Debian image.
#
# usage: customize.sh TREE small|systemd|test

set -eu
tree=$1
variant=$2
files=$(cd "$(dirname "$0")" && pwd)/files

mkdir -p "$tree/cicada" "$tree/usr/local/bin" "$tree/usr/local/sbin"
for f in demo net-up udhcpc; do install -m 755 "$files/$f" "$tree/cicada/$f"; done
install -m 755 "$files/cicada-init" "$tree/sbin/cicada-init"
for applet in wget udhcpc ifconfig route vi ping; do
    [ -e "$tree/usr/bin/$applet" ] || ln -sf /bin/busybox "$tree/usr/local/bin/$applet"
done
echo cicada >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 cicada\n' >"$tree/etc/hosts"
echo 'nameserver 10.0.2.3' >"$tree/etc/resolv.conf"
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$tree/etc/fstab"
sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*
if [ "$variant" = small ]; then
    for end in poweroff reboot halt; do
        printf '#!/bin/sh\nsync\nbusybox mount -o remount,ro /\nexec busybox %s -f\n' $end >"$tree/usr/local/sbin/$end"
        chmod 755 "$tree/usr/local/sbin/$end"
    done
    exit 0
fi

# systemd: DHCP on every card, a login on the serial port and on the virtio console, the demo where it is asked for.
mkdir -p "$tree/etc/systemd/network" "$tree/etc/systemd/system/serial-getty@.service.d"
printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/80-dhcp.network"
cat >"$tree/etc/systemd/system/serial-getty@.service.d/autologin.conf" <<'END'
[Unit]
ConditionKernelCommandLine=!cicada.demo=1

[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 - $TERM
END
install -m 644 "$files/cicada-demo.service" "$tree/etc/systemd/system/cicada-demo.service"
for unit in systemd-networkd systemd-networkd-wait-online cicada-demo; do
    chroot "$tree" systemctl --quiet enable "$unit.service"
done
: >"$tree/etc/machine-id"
