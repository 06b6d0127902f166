#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# virtio-net end to end: the guest fetches 100 MB from the host, sends them back, and serves some through a forwarded
# port; then the same both ways with a driver that leaves all offloads alone.
. "$(dirname "$0")/../lib.sh"
images kernel boot
mkdir -p "$T/www"
dd if=/dev/urandom of="$T/www/file" bs=1M count=100 2>/dev/null
serve "$T/www"
forwarded=$((PORT + 1))
# The receiver keeps its input open: at its end nc would close the connection.
mkfifo "$T/idle"
exec 4<>"$T/idle"
busybox nc -l -p $((PORT + 3)) >"$T/received" <"$T/idle" &
receiver=$!
children="$children $receiver"
cat >"$T/script" <<END
sh /cicada/net-up || exit 1
ifconfig | grep 'inet addr:10.0.2'
wget -q -O /tmp/file "http://10.0.2.2:$PORT/file" || exit 2
echo "guest got \$(sha256sum </tmp/file)"
nc 10.0.2.2 $((PORT + 3)) </tmp/file || exit 3
mkdir /tmp/www
head -c 3000000 /tmp/file >/tmp/www/part
httpd -p 8080 -h /tmp/www
echo "CICADA: guest serves"
nc -l -p 8081 >/tmp/bye
END
with_script "$BOOT" "$T/script" "$T/initrd"
start --kernel "$KERNEL" --initrd "$T/initrd" --cpus 2 --cmdline "console=ttyS0 quiet cicada.mode=script" \
    --net "user,hostfwd=tcp:$forwarded:8080,hostfwd=tcp:$((forwarded + 1)):8081"
wait_console 180 "CICADA: guest serves"
shows "guest got $(sha256sum <"$T/www/file" | cut -d ' ' -f 1)"
wait "$receiver"
cmp "$T/received" "$T/www/file" || fail "the host received something else than the guest sent"
busybox wget -q -O "$T/part" "http://127.0.0.1:$forwarded/part" || fail "no answer on the forwarded port"
head -c 3000000 "$T/www/file" | cmp - "$T/part" || fail "the forwarded port delivers something else"
echo bye | busybox nc -w 5 127.0.0.1 $((forwarded + 1))
finish 30
ends_with 0
shows "CICADA: script exit 0"

# The first 16 MB again, without partial checksums and large segments.
head -c 16000000 "$T/www/file" >"$T/www/part"
busybox nc -l -p $((PORT + 3)) >"$T/received" <"$T/idle" &
receiver=$!
children="$children $receiver"
cat >"$T/script" <<END
rmmod virtio_net && insmod "\$(grep virtio_net.ko /cicada/modules)" csum=0 gso=0 || exit 1
sh /cicada/net-up || exit 1
[ "\$(cat /sys/module/virtio_net/parameters/gso)" = N ] || exit 2
wget -q -O /tmp/part "http://10.0.2.2:$PORT/part" || exit 3
nc 10.0.2.2 $((PORT + 3)) </tmp/part || exit 4
END
with_script "$BOOT" "$T/script" "$T/initrd"
vm 60 --kernel "$KERNEL" --initrd "$T/initrd" --net user \
    --cmdline "console=ttyS0 quiet cicada.mode=script"
ends_with 0
shows "CICADA: script exit 0"
wait "$receiver"
cmp "$T/received" "$T/www/part" || fail "the host received something else than a guest without offloads sent"
