#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --profile names what the guest's kernel was doing, without any file of the guest; --perf-map names translated code.
. "$(dirname "$0")/../lib.sh"
images kernel plain

[ "$ENGINE" = xlate ] || skip "only xlate can be profiled"
vm 10 --profile /nonexistent/profile --kernel "$KERNEL"
ends_with 1
grep -q "profile: create '/nonexistent/profile': No such file" "$T/err" || fail "the file that cannot be made is not named"

start --kernel "$KERNEL" --initrd "$PLAIN" --cmdline "console=ttyS0 quiet cicada.mode=hang" \
    --profile "$T/profile" --perf-map
wait_console 60 "CICADA: userspace reached"
MAP=/tmp/perf-$VM.map
[ -f "$MAP" ] || fail "there is no $MAP"
cp "$MAP" "$T/map"
rm -f "$MAP"
sleep 1
kill -TERM "$VM"
finish 20
ends_with 143

grep -qE '^[0-9a-f]+ [0-9a-f]+ trampolines$' "$T/map" || fail "the map does not name the trampolines"
[ "$(grep -cE '^[0-9a-f]+ [0-9a-f]+ kernel_ffffffff[0-9a-f]{8}$' "$T/map")" -gt 1000 ] || fail "the map has few blocks"

grep -vE '^[^ ;]+(;[^ ;]+)* [1-9][0-9]*$' "$T/profile" && fail "a line is no folded stack"
sort "$T/profile" | uniq -d | grep . && fail "a stack comes twice"
grep -qE '^kernel;(.*;)?kernel_init;.*;\[translated\] [0-9]+$' "$T/profile" || fail "kernel_init calls nothing"
grep -qE '^\[idle\] [0-9]{3}' "$T/profile" || fail "a guest that waits for a second has no idle samples"
# Around a thousand samples a second, of a machine that ran for more than one.
samples=$(awk '{ n += $NF } END { print n + 0 }' "$T/profile")
[ "$samples" -gt 500 ] || fail "only $samples samples"
grep -qE "^cicada: profile: $samples samples, idle [0-9.]+ %, translated [0-9.]+ %" "$T/err" || fail "no summary"
