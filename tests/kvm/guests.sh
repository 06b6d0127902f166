#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 500
# The tiny guests of tests/guest, written against the manual and run on xlate there, on hardware virtualization with the
# interrupt controllers in the kernel and in user space. Every case passes or stands in docs/BEDS.md with the reason.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
WANTED=400 # cases that must pass, with either chips

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
outer_run 300

awk -v wanted=$WANTED '
FILENAME ~ /known$/ { known[$1 " " $2]; next }
$3 == "ok" && $2 ~ /:$/ { passed[$1 " " $2]++; total[$2]++ }
$3 == "FAIL" && !(($1 " " $4) in known) { print "WRONG:", $0; bad++ }
$3 == "exit" && $4 != 64 && $4 != 65 { print "WRONG: ended early:", $0; bad++ }
END {
    for (key in passed)
        printf "%s %d passed\n", key, passed[key]
    for (chips in total) {
        runs++
        if (total[chips] < wanted) { print "WRONG: fewer than", wanted, "with", chips, total[chips]; bad++ }
    }
    exit bad > 0 || runs != 2
}' "$T/known" "$CONSOLE" || fail "cases that neither the bed nor docs/BEDS.md explains"
