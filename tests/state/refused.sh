#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whatever is wrong with a snapshot is refused with exit code 1 and the reason; whatever goes wrong while one is taken
# leaves no directory and a running guest.
. "$(dirname "$0")/../lib.sh"
images kernel plain
export XDG_RUNTIME_DIR="$T"
start --name r -m 128M --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet"
wait_console 60 "powers off"
"$CICADA" snapshot r --to "$T/good" >/dev/null || fail "snapshot"
"$CICADA" snapshot r --to "$T/diff" --diff >/dev/null || fail "difference"

# refuse REASON COMMAND...
refuse() {
    reason=$1
    shift
    timeout -k 5 30 "$CICADA" "$@" </dev/null >"$T/out" 2>"$T/err"
    code=$?
    [ $code = 1 ] || { complain "$*: exit code $code, wanted 1"; return; }
    grep -q "$reason" "$T/err" || { complain "$*: does not say '$reason'"; return; }
    echo "refused: $reason"
}
# damaged: a fresh copy of the good one in $T/bad, which its caller spoils.
damaged() {
    rm -rf "$T/bad"
    cp -r --sparse=always "$T/good" "$T/bad"
    chmod u+w "$T"/bad/*
}
damaged && printf '\377' | dd of="$T/bad/state" bs=1 seek=3000 conv=notrunc 2>/dev/null
refuse "corrupt" restore "$T/bad" --name x
refuse "corrupt" snapshot info "$T/bad"
damaged && truncate -s -1 "$T/bad/state"
refuse "truncated" restore "$T/bad" --name x
damaged && truncate -s 1M "$T/bad/memory"
refuse "truncated" restore "$T/bad" --name x
damaged && rm "$T/bad/memory"
refuse "memory: No such file" restore "$T/bad" --name x
damaged && sed -i 's/"version": 1,$/"version": 99,/' "$T/bad/manifest.json"
refuse "version 99" restore "$T/bad" --name x
damaged && sed -i 's/"format": "cicada-snapshot"/"format": "other"/' "$T/bad/manifest.json"
refuse "not of a snapshot" restore "$T/bad" --name x
damaged && truncate -s 100 "$T/bad/manifest.json"
refuse "manifest.json is damaged" restore "$T/bad" --name x
damaged && sed -i 's/"memory": "[0-9]*"/"memory": "268435456"/' "$T/bad/manifest.json"
refuse "memory at other addresses" restore "$T/bad" --name x
damaged && sed -i 's/"cpus": "1"/"cpus": "2"/' "$T/bad/manifest.json"
refuse "snapshot" restore "$T/bad" --name x
damaged && sed -i 's/"cpu": "movable"/"cpu": "x86-64-v2"/' "$T/bad/manifest.json"
refuse "CPUID" restore "$T/bad" --name x
damaged && sed -i 's/"board": "microvm"/"board": "microvm", "serial": "file:hostile"/' "$T/bad/manifest.json"
refuse "sets 'serial', which is not" restore "$T/bad" --name x
damaged && cp "$T/diff/state" "$T/bad/state"
refuse "state" restore "$T/bad" --name x
damaged && python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
at = os.lseek(fd, 0, os.SEEK_DATA) // 4096 * 4096
page = bytearray(os.pread(fd, 4096, at))
page[20] ^= 1
os.pwrite(fd, page, at)' "$T/bad/memory"
refuse "checksum of the page" restore "$T/bad" --name x --eager
refuse "checksum of the page" snapshot verify "$T/bad"
mv "$T/good" "$T/moved"
refuse "parent" restore "$T/diff" --name x
cp -r --sparse=always "$T/diff" "$T/good"
refuse "parent" restore "$T/diff" --name x
rm -rf "$T/good" && mv "$T/moved" "$T/good"
refuse "No such file" restore "$T/nowhere" --name x
refuse "Not a directory" restore "$T/keys" --name x
refuse "is taken by a running VM" restore "$T/good" --name r
refuse "did you mean" restore "$T/good" --eagre
refuse "File exists" snapshot r --to "$T/good"
refuse "No such file" snapshot r --to "$T/no/where"
refuse "no VM 'nobody'" snapshot nobody --to "$T/x"
refuse "is the parent of" snapshot rm "$T/good"
refuse "not of a snapshot\|manifest.json" snapshot rm "$T/cicada"
refuse "no virtio console" restore "$T/good" --name x --console null
refuse "expected a number" restore "$T/good" --count 0
refuse "\-\-to DIR is needed" suspend r

# A disk that is full: a file system of 8 MiB, where one can be mounted.
mkdir "$T/small"
if mount -t tmpfs -o size=8m none "$T/small" 2>/dev/null; then
    timeout 60 "$CICADA" snapshot r --to "$T/small/x" >"$T/out" 2>"$T/err"
    code=$?
    left=$(ls -A "$T/small")
    umount "$T/small"
    [ $code = 2 ] || [ $code = 1 ] || complain "a full disk: exit code $code"
    grep -q "No space" "$T/err" || complain "a full disk is not told"
    [ -z "$left" ] || complain "a full disk leaves $left"
fi
# The guest never noticed any of it.
# shellcheck disable=SC2016 # the guest expands it
echo 'echo still $((40 + 2))' >&3
wait_console 20 "still 42"
[ -z "$(find "$T" -name '.*partial')" ] || complain "temporary directories are left"
all_refused
