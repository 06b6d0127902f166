#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
# Inside Debian: compilers and interpreters give right answers (tests/boot/programs/run), and apt-get updates from,
# installs from and downloads from a package repository on the host.
. "$(dirname "$0")/../lib.sh"
images kernel boot test
command -v dpkg-deb >/dev/null 2>&1 || skip "needs dpkg-deb"

# A repository of one package that holds a program and a file of noise.
repo=$T/www/repo
mkdir -p "$repo" "$T/deb/DEBIAN" "$T/deb/usr/bin" "$T/deb/usr/share/greeting"
printf '#!/bin/sh\necho "greeting $(sha256sum </usr/share/greeting/noise)"\n' >"$T/deb/usr/bin/greeting"
chmod 755 "$T/deb/usr/bin/greeting"
head -c 4000000 /dev/urandom >"$T/deb/usr/share/greeting/noise"
sum=$(sha256sum <"$T/deb/usr/share/greeting/noise")
cat >"$T/deb/DEBIAN/control" <<END
Package: greeting
Version: 1.0
Architecture: all
Maintainer: Cicada's tests <tests@example.org>
Description: says that it was installed
END
dpkg-deb --root-owner-group --build "$T/deb" "$repo/greeting_1.0_all.deb" >/dev/null || fail "dpkg-deb"
{
    cat "$T/deb/DEBIAN/control"
    echo "Filename: ./greeting_1.0_all.deb"
    echo "Size: $(wc -c <"$repo/greeting_1.0_all.deb")"
    echo "SHA256: $(sha256sum "$repo/greeting_1.0_all.deb" | cut -d ' ' -f 1)"
} >"$repo/Packages"
gzip -k "$repo/Packages"
serve "$T/www"
cp "$ROOT/tests/boot/programs/run" "$T/www/run"
cat >"$T/www/script" <<END
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo "deb [trusted=yes] http://10.0.2.2:$PORT/repo ./" >/etc/apt/sources.list
apt-get -q update && apt-get -q -y install greeting && greeting
wget -q -O /tmp/run http://10.0.2.2:$PORT/run
sh /tmp/run
dmesg | grep -E 'BUG:|Oops|soft lockup|rcu.*stall|segfault|general protection|invalid opcode' && echo "CICADA: complaints"
poweroff
END
copy_disk test
start --kernel "$KERNEL" --initrd "$BOOT" --disk "$DISK" --net user --cpus 2 --memory 1G \
    --cmdline "console=ttyS0 quiet root=/dev/vda"
wait_console 120 "root@cicada:~#"
echo "wget -q -O /tmp/script http://10.0.2.2:$PORT/script; sh /tmp/script" >&3
wait_console 300 "greeting $sum"
wait_console 300 "CICADA: programs"
finish 90
shows "CICADA: programs 0 failed"
grep -aq "CICADA: complaints" "$CONSOLE" && fail "the guest's kernel complains"
ends_with 0
