#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gdb comes to a guest that runs, leaves, comes again by TCP and ends it; what is no gdb disturbs nothing; how the end of
# a guest is told; refusals.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
build_guests debuggee
DEBUG=$GUESTS/debuggee.debug

# Without ",wait" the guest runs; it stops for gdb, and goes on when gdb leaves, even where gdb just vanishes.
debug "" --memory 64M --debug-exit --kernel "$GUESTS/debuggee.elf" --cmdline spin
wait_console 20 "ok own_traps"
gdb_script 30 "$DEBUG" <<'END'
backtrace 1
break spin
detach
END
said "^#0 .* spin \(\)"
# A client that sends packets and noise, reads no answer and goes.
timeout 10 python3 - "$GDB_SOCKET" <<'END' || fail "the socket was not served"
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.settimeout(1)
s.sendall(b"$g#67")
assert s.recv(1) == b"+"
try:
    for i in range(300):
        s.sendall(b"$m100000,1000#e9$vCont;q#00$Z9,0,0#55$qXfer:features:read:target.xml:0,ffff#00" + os.urandom(500))
except OSError: # not read any more: that is the bound
    pass
END
gdb_script 30 "$DEBUG" <<'END'
monitor reset
maintenance flush register-cache
info registers cs
hbreak test_spin
continue
set variable spins = 1
delete
continue
END
said "^cs +0x10 "
said "Breakpoint 1, test_spin"
said "exited with code 0100|exited normally"
finish 20
ends_with 64

# TCP; kill.
for _ in 1 2 3 4 5 6 7 8; do
    PORT=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 30000))
    rm -f "$T/keys"
    start --gdb "tcp:127.0.0.1:$PORT,wait" -v --memory 64M --debug-exit --kernel "$GUESTS/debuggee.elf"
    sleep 0.5
    kill -0 "$VM" 2>/dev/null && break
done
gdb_script 30 "$DEBUG" "127.0.0.1:$PORT" <<'END'
stepi
kill
END
finish 20
ends_with 0

wrong=0
refused "--gdb" --gdb unix: --kernel "$GUESTS/debuggee.elf"
refused "--gdb" --gdb tcp:0.0.0.0:1234 --kernel "$GUESTS/debuggee.elf"
refused "--gdb" --gdb tcp:127.0.0.1:99999 --kernel "$GUESTS/debuggee.elf"
refused "wait" --gdb "unix:$T/s,now" --kernel "$GUESTS/debuggee.elf"
refused "gdb socket" --gdb "unix:$T" --kernel "$GUESTS/debuggee.elf"
refused "gdb socket" --gdb "unix:$T/nowhere/s" --kernel "$GUESTS/debuggee.elf"
all_refused
