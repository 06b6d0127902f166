#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Migration with a copy of the disks: the guest writes to its disk all the while, goes on with the copy, and finds in it
# what it wrote; an existing file is not written over.
# timeout: 300
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

images kernel boot
truncate -s 8M "$T/b"
dd if=/dev/urandom of="$T/c" bs=64k count=16 2>/dev/null
sum=$(sha256sum <"$T/c" | cut -d ' ' -f 1)
# Each sector gets its number, once; now and then all are read back. So a write that the copy missed is found.
cat >"$T/script" <<END
n=0
while :; do
    printf '%-512d' \$n | dd of=/dev/vda bs=512 seek=\$n conv=notrunc oflag=direct 2>/dev/null
    n=\$((n + 1))
    [ \$((n % 50)) = 0 ] || continue
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=512 count=\$n 2>/dev/null | tr -s ' ' '\\n' >/tmp/found
    seq 0 \$((n - 1)) | cmp -s - /tmp/found && echo "sectors \$n" || echo "DISK WRONG"
    case \$(sha256sum </dev/vdb) in $sum*) ;; *) echo "SECOND DISK WRONG" ;; esac
done
END
with_script "$BOOT" "$T/script" "$T/initrd"
source_vm a --memory 256M --disk "$T/b" --disk "$T/c" --initrd "$T/initrd" --cmdline "$LOADED"
wait_file 120 "$T/a.con" "sectors 50"

# The source's own disk, asked for by mistake.
target_vm x "unix:$T/socket"
timeout 60 "$CICADA" migrate a --to "$AT" --copy-disks >"$T/out" 2>"$T/err" && fail "copied onto itself"
grep -q "b' exists" "$T/err" || fail "the message does not name the file: $(cat "$T/err")"
exit_of "$TARGET" 10
ends_with 1
[ "$(state a)" = running ] || fail "the source is $(state a)"

target_vm b "unix:$T/socket" --disk "$T/copy" --disk "$T/second"
timeout 200 "$CICADA" migrate a --to "$AT" --copy-disks --bandwidth 25M --json >"$T/figures" 2>"$T/err" ||
    fail "migrate: $(cat "$T/err")"
exit_of "$SOURCE" 10
ends_with 6
rm "$T/b" "$T/c"
wait_file 120 "$T/b.con" "sectors $(($(last a sectors) + 100))"
nothing_wrong
echo "copied: $(tr -d ' \n' <"$T/figures")"
[ "$(stat -c %s "$T/copy")" = $((8 << 20)) ] || fail "the copy has $(stat -c %s "$T/copy") bytes"
"$CICADA" stop b
exit_of "$TARGET" 10
ends_with 0
