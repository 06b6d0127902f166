#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds every fuzz/fuzz_NAME.c with clang's libFuzzer, address and undefined-behaviour sanitizers, and runs each for
# FUZZ_SECONDS (default 30) from the seeds in fuzz/corpus/NAME and what earlier runs found (.cache/fuzz/NAME).
# An input that fails is kept as .cache/fuzz/NAME-crash-*.
#
# usage: fuzz.sh [NAME]...

set -u
cd "$(dirname "$0")/.." || exit 1
dir=build-fuzz
[ -e "$dir/build.ninja" ] || CC=clang meson setup "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    -Dc_args='-fsanitize=fuzzer-no-link' >/dev/null || exit 1
targets=$(cd fuzz && for f in fuzz_*.c; do echo "tests/${f%.c}"; done)
# A harness that is newer than the build folder makes Meson look again.
build() {
    # shellcheck disable=SC2086 # a list
    ninja -C "$dir" --quiet $targets
}
log=$(mktemp)
build >"$log" 2>&1 || { meson setup --reconfigure "$dir" >/dev/null && build >"$log" 2>&1; } || {
    cat "$log"
    exit 1
}
rm -f "$log"
failed=0
for program in "$dir"/tests/fuzz_*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    name=${program##*/fuzz_}
    [ $# = 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
    corpus=.cache/fuzz/$name
    mkdir -p "$corpus"
    seeds=
    [ -d "fuzz/corpus/$name" ] && seeds=fuzz/corpus/$name
    log=.cache/fuzz/$name.log
    # shellcheck disable=SC2086 # empty or one name
    if "$program" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix=".cache/fuzz/$name-" "$corpus" $seeds >"$log" 2>&1; then
        echo "ok fuzz/$name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs)"
    else
        echo "not ok fuzz/$name"
        tail -n 40 "$log"
        failed=1
    fi
done
exit $failed
