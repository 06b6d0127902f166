#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# report.sh LOG...: what each case of the tiny guests does on each bed (docs/BEDS.md), from the logs of
# tests/kvm/guests.sh and tests/kvm/vmx.sh; xlate and this machine's /dev/kvm are run here. One line for each case:
# GUEST CASE and a letter for xlate, kvm-amd, kvm-intel, dev: o passed, F failed, s skipped, . not run there. The last
# lines count. Not a test of `make check`: BUILD, CICADA and CICADA_CACHE as there.
. "$(dirname "$0")/../lib.sh"
. "$ROOT/tests/guest/lib/common.sh"

# here BED ENGINE: lines "BED GUEST VERDICT CASE" of all guests that name the bed
here() {
    for guest in $(beds_guests "$1"); do
        build_guests "$guest" 2>/dev/null
        timeout -k 5 60 "$CICADA" run --engine "$2" --memory 64M --debug-exit --cpus 2 --kernel "$GUESTS/$guest.elf" \
            --cmdline "$(beds_left_out "$1" "$guest")" </dev/null 2>/dev/null |
            sed -nE "s/^(ok|FAIL|skip) ([^ ].*)/$1 $guest \1 \2/p"
    done
}

# from_logs BED PATTERN LOG...: the same of the lines "GUEST kernel: ok CASE" that a bed's test wrote
from_logs() {
    bed=$1
    pattern=$2
    shift 2
    for log in "$@"; do
        grep -aq "$pattern" "$log" && tr -d '\r' <"$log" |
            sed -nE "s/^(\[[ 0-9.]*\] )?([a-z]+) kernel: (ok|FAIL|skip) ([^ ].*)/$bed \2 \3 \4/p"
    done
}

{
    here xlate xlate
    [ ! -w /dev/kvm ] || here dev kvm
    from_logs kvm-amd "OUTER: kvm_amd" "$@"
    from_logs kvm-intel "OUTER: kvm_intel" "$@"
} | awk '
{
    bed = $1; guest = $2; verdict = $3 == "ok" ? "o" : $3 == "FAIL" ? "F" : "s"
    sub(/^[^ ]+ [^ ]+ [^ ]+ /, "")
    key = guest " " $0
    if (!(key in seen)) { order[++n] = key; seen[key] }
    if (!((bed, key) in is)) is[bed, key] = verdict
}
function letter(bed, key) { return (bed, key) in is ? is[bed, key] : "." }
END {
    for (i = 1; i <= n; i++) {
        k = order[i]
        x = letter("xlate", k); a = letter("kvm-amd", k); v = letter("kvm-intel", k); d = letter("dev", k)
        print x, a, v, d, k
        if (x != "o") continue
        cases++; amd += a == "o"; intel += v == "o"; dev += d == "o"; agree += a == "o" || v == "o"
        split(k, w, " "); by[w[1]] += a == "o" || v == "o"
    }
    printf "passed on xlate %d; and on kvm-amd %d, kvm-intel %d, dev %d; on a true bed %d:", cases, amd, intel, dev, agree
    for (g in by) printf " %s %d", g, by[g]
    print ""
}'
