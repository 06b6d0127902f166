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
