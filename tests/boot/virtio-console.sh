#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The virtio console carries bytes both ways, unchanged, beside a serial console that goes elsewhere.
. "$(dirname "$0")/../lib.sh"
images kernel boot
cat >"$T/script" <<'END'
exec 5<>/dev/hvc0 # or the last close puts it back into cooked mode
stty -F /dev/hvc0 raw -echo
echo "CICADA: console ready" >/dev/hvc0
head -c 300000 /dev/hvc0 >/tmp/in
echo "guest got $(md5sum </tmp/in)" >/dev/hvc0
seq 1 20000 >/dev/hvc0
END
with_script "$BOOT" "$T/script" "$T/initrd"
mkfifo "$T/keys"
"$CICADA" run --engine "$ENGINE" --cpus 2 --console stdio --serial "file:$T/serial" --kernel "$KERNEL" \
    --initrd "$T/initrd" --cmdline "console=ttyS0 cicada.mode=script" <"$T/keys" >"$CONSOLE" 2>"$T/err" &
VM=$!
children=$VM
exec 3>"$T/keys"
wait_console 60 "CICADA: console ready"
seq 1 60000 | head -c 300000 >&3
finish 60
ends_with 0
shows "guest got $(seq 1 60000 | head -c 300000 | md5sum)"
[ "$(grep -ac '^[0-9][0-9]*$' "$CONSOLE")" = 20000 ] || fail "lines were lost on the way out"
grep -aq "CICADA: script exit 0" "$T/serial" || fail "the serial console did not go to its file"
