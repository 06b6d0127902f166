# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154
# A tiny guest that writes the letters a to p in turn, for tests that move it (sourced after migrate/lib.sh).

# letters_kernel FILE: a multiboot kernel: header, then
#   xor ebx, ebx; 1: inc ebx; test ebx, 0xffff; jnz 1b; mov eax, ebx; shr eax, 16; and al, 15; add al, 'a';
#   mov dx, 0x3f8; out dx, al; jmp 1b
letters_kernel() {
    python3 - "$1" <<'PYTHON'
import struct, sys
base, magic, flags = 0x100000, 0x1BADB002, 0x10000
code = bytes.fromhex("31db 43 f7c3ffff0000 75f7 89d8 c1e810 240f 0461 66baf803 ee ebe7")
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, base, base, 0, 0, base + 32) + code)
PYTHON
}

# letters NAME COUNT: until it has written so many.
letters() {
    tries=400
    until [ "$(cat "$T/$1.con" 2>/dev/null | wc -c)" -ge "$2" ] 2>/dev/null; do
        [ $tries -gt 0 ] || fail "$1 wrote less than $2 letters: $(cat "$T/$1.err")"
        sleep 0.1
        tries=$((tries - 1))
    done
}

# more_letters NAME COUNT: so many after now.
more_letters() { letters "$1" $(($(cat "$T/$1.con" 2>/dev/null | wc -c) + $2)); }

# in_turn FILE...: none is missing, none came twice.
in_turn() {
    python3 - "$@" <<'PYTHON' || fail "a letter is missing or came twice"
import sys
text = b"".join(open(name, "rb").read() for name in sys.argv[1:])
sys.exit(any((b - a) % 16 != 1 for a, b in zip(text, text[1:])))
PYTHON
}
