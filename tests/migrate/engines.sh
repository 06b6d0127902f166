#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From one engine to the other and back: a tiny guest that writes the letters a to p in turn, on kvm, then on xlate, then
# on kvm. Its processor has what KVM gives on this host, all the way.
# timeout: 180
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

[ -w /dev/kvm ] || skip "no /dev/kvm here"
# A multiboot kernel: header, then
#   xor ebx, ebx; 1: inc ebx; test ebx, 0xffff; jnz 1b; mov eax, ebx; shr eax, 16; and al, 15; add al, 'a';
#   mov dx, 0x3f8; out dx, al; jmp 1b
python3 - "$T/kernel" <<'END'
import struct, sys
base, magic, flags = 0x100000, 0x1BADB002, 0x10000
code = bytes.fromhex("31db 43 f7c3ffff0000 75f7 89d8 c1e810 240f 0461 66baf803 ee ebe7")
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, base, base, 0, 0, base + 32) + code)
END
KERNEL=$T/kernel

# letters NAME COUNT: until it has written so many.
letters() {
    tries=400
    until [ "$(cat "$T/$1.con" 2>/dev/null | wc -c)" -ge "$2" ] 2>/dev/null; do
        [ $tries -gt 0 ] || fail "$1 wrote less than $2 letters: $(cat "$T/$1.err")"
        sleep 0.1
        tries=$((tries - 1))
    done
}

hop() { # FROM TO ENGINE
    ENGINE=$3
    target_vm "$2" "unix:$T/socket"
    timeout 60 "$CICADA" migrate "$1" --to "$AT" >"$T/out" 2>"$T/err" || fail "to $3: $(cat "$T/err")"
    exit_of "$SOURCE" 20
    ends_with 6
    letters "$2" 20
    [ "$("$CICADA" ps | awk -v name="$2" '$1 == name { print $7 }')" = "$3" ] || fail "$2 does not run on $3"
    SOURCE=$TARGET
}

ENGINE=kvm
source_vm a --memory 32M --boot multiboot
letters a 20
hop a b xlate
hop b c kvm
"$CICADA" stop c
python3 - "$T/a.con" "$T/b.con" "$T/c.con" <<'END' || fail "a letter is missing or came twice"
import sys
text = b"".join(open(name, "rb").read() for name in sys.argv[1:])
sys.exit(any((b - a) % 16 != 1 for a, b in zip(text, text[1:])))
END
