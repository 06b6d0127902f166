# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# gdb on a guest (sourced after tests/lib.sh). A script of gdb is read from standard input, what gdb says is in
# $T/said.

command -v gdb >/dev/null || skip "gdb is not installed"
GDB_SOCKET=$T/gdb

# debug SUFFIX ARGUMENT...: begins a guest with --gdb at $GDB_SOCKET; SUFFIX is ",wait" or nothing.
debug() {
    suffix=$1
    shift
    start --gdb "unix:$GDB_SOCKET$suffix" "$@"
    tries=100
    until [ -S "$GDB_SOCKET" ]; do
        [ $tries -gt 0 ] || fail "no socket for gdb"
        kill -0 "$VM" 2>/dev/null || fail "the guest ended before it could be debugged"
        sleep 0.1
        tries=$((tries - 1))
    done
}

# gdb_script SECONDS FILE [ADDRESS]: runs a script with the symbols of FILE, at our socket or another address.
gdb_script() {
    { printf 'set pagination off\nset confirm off\ntarget remote %s\n' "${3:-$GDB_SOCKET}" && cat; } >"$T/script.gdb"
    timeout -k 5 "$1" gdb -nx -batch -x "$T/script.gdb" "$2" >"$T/said" 2>&1
    gdb_code=$?
    cat "$T/said"
    [ $gdb_code != 124 ] || fail "gdb did not end within $1 s"
    ! grep -q "Error in sourced command file" "$T/said" || fail "gdb gave up its script"
}

said() { grep -qE -- "$1" "$T/said" || fail "gdb did not say '$1'"; }
