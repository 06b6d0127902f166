# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Shared by the scripts of this folder (sourced after tests/lib.sh).

GUESTS=$BUILD/guests
build_guests() { "$ROOT/tests/guest/lib/build.sh" "$GUESTS" "$@" || fail "cannot build $*"; }

# The ways to run a guest: the list of --xlate-opts; GUEST_OPTS replaces it, tools/soak.sh sets the long one.
variants() {
    [ "$ENGINE" = xlate ] || { echo none; return; }
    echo "${GUEST_OPTS:-none emulate}"
}

# run_guest NAME CASES [ARGUMENT...]: builds src/NAME.c and runs it in all ways; at least CASES cases must have
# passed and none failed. (A guest whose tests vanish does not pass.)
run_guest() {
    guest=$1
    cases=$2
    shift 2
    build_guests "$guest"
    for variant in $(variants); do
        set_variant "$variant"
        # shellcheck disable=SC2086 # a list
        vm "${GUEST_SECONDS:-60}" --memory 64M --debug-exit --kernel "$GUESTS/$guest.elf" $opts "$@"
        check_guest
    done
}

set_variant() {
    case $1 in
    none) opts= ;;
    *) opts="--xlate-opts $1" ;;
    esac
}

check_guest() {
    passed=$(sed -n 's/^\([0-9]*\) ok, .*/\1/p' "$CONSOLE")
    echo "$guest ($variant): exit code $code, $(tail -n 1 "$CONSOLE")"
    if [ "$code" != 64 ]; then
        grep -a -B2 -E '^(FAIL|PANIC)' "$CONSOLE"
        fail "$guest with '$variant': exit code $code"
    fi
    [ "${passed:-0}" -ge "$cases" ] || fail "$guest with '$variant': ${passed:-no} cases of $cases"
}

# ---- docs/BEDS.md: which guests a bed runs, and what it is known to do otherwise ----
beds_guests() { # BED: guests whose source names it
    grep -lE "^// beds:.* $1( |\$)" "$ROOT"/tests/guest/src/*.c | sed 's|.*/||; s|\.c$||'
}
beds_rows() { # BED: lines "GUEST CASE KIND"
    awk -F' *[|] *' -v bed="$1" '$2 == bed && NF > 6 { print $3, $4, $5 }' "$ROOT/docs/BEDS.md"
}
beds_left_out() { # BED GUEST [all]: as the guest's command line wants it; all: also what merely fails
    beds_rows "$1" | awk -v guest="$2" -v all="${3:-}" '$1 == guest && ($3 == "ends" || all) { printf " -%s", $2 }'
}

# What lockstep (tests/lockstep) cannot compare: no interrupts come there, the local APIC has no registers, ports read
# all ones, time stamps are chance; and where RIP is after a branch to a bad address (docs/ROADMAP.md).
LOCKSTEP_LEFT_OUT="-apic_base_reserved_bits -cr8_takes_four_bits -pic_interrupt_wakes_from_hlt -stored_by_port_input"
LOCKSTEP_LEFT_OUT="$LOCKSTEP_LEFT_OUT -tsd_guards_rdtsc -rdtscp_gives_tsc_aux"
LOCKSTEP_LEFT_OUT="$LOCKSTEP_LEFT_OUT -non_canonical_jump -non_canonical_call -non_canonical_ret -jump_to_odd_addresses"
