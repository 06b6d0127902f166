#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 500
# The tiny guests of tests/guest, written against the manual and run on xlate there, on hardware virtualization with the
# interrupt controllers in the kernel and in user space, that of interrupts with the local APICs alone in the kernel too.
# Every case passes or stands in docs/BEDS.md with the reason.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
WANTED=400      # cases that must pass, with either chips
WANTED_SPLIT=35 # in the guest of interrupts

TINY_GUESTS=$(beds_guests kvm-amd)
# shellcheck disable=SC2086 # a list
build_guests $TINY_GUESTS
outer_new
beds_rows kvm-amd | grep ' fails$' >"$T/known"
for guest in $TINY_GUESTS; do
    cp "$GUESTS/$guest.elf" "$OUTER/g/"
    for chips in kernel user; do
        tiny_guest_runs kvm-amd "$guest" "$chips"
    done
done
tiny_guest_runs kvm-amd interrupts split
outer_run 300

awk -v wanted=$WANTED -v wanted_split=$WANTED_SPLIT '
BEGIN { need["kernel:"] = need["user:"] = wanted; need["split:"] = wanted_split }
FILENAME ~ /known$/ { known[$1 " " $2]; next }
$3 == "ok" && $2 ~ /:$/ { passed[$1 " " $2]++; total[$2]++ }
$3 == "FAIL" && !(($1 " " $4) in known) { print "WRONG:", $0; bad++ }
$3 == "exit" && $4 != 64 && $4 != 65 { print "WRONG: ended early:", $0; bad++ }
END {
    for (key in passed)
        printf "%s %d passed\n", key, passed[key]
    for (chips in need)
        if (total[chips] < need[chips]) { print "WRONG: fewer than", need[chips], "with", chips, total[chips]; bad++ }
    exit bad > 0
}' "$T/known" "$CONSOLE" || fail "cases that neither the bed nor docs/BEDS.md explains"
