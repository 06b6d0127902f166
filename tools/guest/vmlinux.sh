#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Extracts the ELF inside .cache/kernel/vmlinuz to .cache/vmlinux.
# The setup header says where the payload is (Linux/x86 boot protocol 2.08: setup_sects at 0x1f1,
# payload_offset at 0x248, payload_length at 0x24c, the offset counted from the protected-mode code).

. "$(dirname "$0")/lib.sh"

"$GUEST_DIR/kernel.sh"
image=$CACHE/kernel/vmlinuz
KEY=$(key_of vmlinux "$0" "$CACHE/kernel.key")
lock vmlinux
is_fresh vmlinux "$KEY" && exit 0
start=$(now_ms)
scratch

field() { od -An -v -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
sects=$(field $((0x1f1)) 1)
[ "$sects" -ne 0 ] || sects=4
offset=$(($(field $((0x248)) 4) + (sects + 1) * 512))
# The last four bytes of the payload are the size of the ELF, not compressed data.
length=$(($(field $((0x24c)) 4) - 4))
tail -c +$((offset + 1)) "$image" | head -c "$length" >"$SCRATCH/payload"

case $(od -An -t x1 -N 4 "$SCRATCH/payload" | tr -d ' ') in
02214c18) need lz4 && lz4 -dc <"$SCRATCH/payload" >"$SCRATCH/vmlinux" ;;
fd377a58) need xz && xz -dc <"$SCRATCH/payload" >"$SCRATCH/vmlinux" ;;
28b52ffd) need zstd && zstd -qdc <"$SCRATCH/payload" >"$SCRATCH/vmlinux" ;;
1f8b*) gzip -dc <"$SCRATCH/payload" >"$SCRATCH/vmlinux" ;;
*) die "unknown compression in $image" ;;
esac
[ "$(od -An -t x1 -N 4 "$SCRATCH/vmlinux" | tr -d ' ')" = 7f454c46 ] || die "no ELF in $image"
publish "$SCRATCH/vmlinux" vmlinux "$KEY"
say "vmlinux: $(du -h "$CACHE/vmlinux" | cut -f1) ($(took "$start"))"
