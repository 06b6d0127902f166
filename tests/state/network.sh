#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 200
# A guest that fetches and sends without end is suspended in the middle of it and restored, twice: connections of before
# are gone, as documented, and the card goes on with what the driver had negotiated; nothing arrives that is wrong.
. "$(dirname "$0")/../lib.sh"
images kernel boot
export XDG_RUNTIME_DIR="$T"
mkdir "$T/www"
dd if=/dev/urandom of="$T/www/file" bs=1M count=8 2>/dev/null
sum=$(sha256sum <"$T/www/file" | cut -d ' ' -f 1)
serve "$T/www"
# Takes what a client sends until it says no more, and answers with its sum.
python3 - >"$T/port" <<'END' &
import hashlib, socketserver
class Sum(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(hashlib.sha256(self.rfile.read(8 << 20)).hexdigest().encode() + b"\n")
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sum)
print(server.server_address[1], flush=True)
server.serve_forever()
END
children="$children $!"
until [ -s "$T/port" ]; do sleep 0.1; done
# What breaks off is no fault; what comes through whole must be right.
cat >"$T/script" <<END
sh /cicada/net-up || exit 1
i=0
while :; do
    i=\$((i + 1))
    timeout 5 wget -q -O /tmp/new http://10.0.2.2:$PORT/file || continue
    [ "\$(sha256sum </tmp/new | cut -d ' ' -f 1)" = $sum ] && echo "GUEST: fetched \$i" || echo "GUEST: WRONG"
    mv /tmp/new /tmp/file
    got=\$(timeout 5 nc 10.0.2.2 $(cat "$T/port") </tmp/file)
    case \$got in $sum) echo "GUEST: sent \$i" ;; ?*) echo "GUEST: WRONG" ;; esac
done
END
with_script "$BOOT" "$T/script" "$T/initrd"
start --name n --cpus 2 --kernel "$KERNEL" --initrd "$T/initrd" --net user \
    --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: fetched" 2
wait_console 60 "GUEST: sent" 2
for n in 1 2; do
    "$CICADA" suspend n --to "$T/snap$n" || fail "suspend $n"
    wait "$VM"
    ! grep -aq WRONG "$CONSOLE" || fail "the guest got or sent something else"
    "$CICADA" restore "$T/snap$n" --engine "$ENGINE" --name n --serial stdio <"$T/keys" >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    wait_console 60 "GUEST: fetched" 3
    wait_console 60 "GUEST: sent" 3
done
"$CICADA" stop n || fail "stop"
! grep -aq WRONG "$CONSOLE" || fail "the guest got or sent something else"
