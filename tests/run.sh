#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs all tests and prints one line each: "ok NAME (1.2 s)", "not ok NAME" with what the test wrote, or
# "skip NAME: reason". The last line is "N passed, N failed".
#
#   check/NAME   tools/check-NAME.sh: rules of the source tree
#   unit/NAME    what meson test knows
#   DIR/NAME     tests/DIR/NAME.sh: behaviour of the program; exit code 77 and a line "SKIP: reason" skips;
#                a line "# timeout: SECONDS" in its head gives it more than 120 s, and "# once more: REASON" a
#                second try, which is printed, where the fault may lie in the bed
#
# usage: run.sh [check|unit|DIR|DIR/NAME]...     BUILD=build is the build folder

set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
export BUILD
passed=0
failed=0
skipped=0
logs=$BUILD/test-logs
rm -rf "$logs"
mkdir -p "$logs"

chosen() { # NAME: is it among the arguments, or are there none?
    [ -n "$filters" ] || return 0
    for f in $filters; do
        case $1 in "$f" | "$f"/*) return 0 ;; esac
    done
    return 1
}

report() { # NAME EXIT-CODE MILLISECONDS LOG
    time=$(awk -v ms="$3" 'BEGIN { printf "%.1f s", ms / 1000 }')
    case $2 in
    0)
        passed=$((passed + 1))
        echo "ok $1 ($time)"
        ;;
    77)
        skipped=$((skipped + 1))
        echo "skip $1: $(sed -n 's/^SKIP: //p' "$4" | tail -n 1)"
        ;;
    *)
        failed=$((failed + 1))
        echo "not ok $1 ($time, exit code $2)"
        tail -n 60 "$4" | sed 's/^/    /'
        ;;
    esac
}

run_script() { # NAME COMMAND...
    name=$1
    shift
    chosen "$name" || return 0
    log=$logs/$(echo "$name" | tr / -).log
    begin=$(date +%s%N)
    limit=$(sed -n 's/^# timeout: \([0-9]*\).*/\1/p' "$1" | head -n 1)
    timeout -k 10 "${limit:-120}" "$@" >"$log" 2>&1 </dev/null
    code=$?
    again=$(sed -n 's/^# once more: //p' "$1" | head -n 1)
    if [ -n "$again" ] && [ $code != 0 ] && [ $code != 77 ]; then
        echo "once more $name: $again"
        tail -n 5 "$log" | sed 's/^/    /'
        timeout -k 10 "${limit:-120}" "$@" >"$log" 2>&1 </dev/null
        code=$?
    fi
    [ $code != 124 ] || echo "timed out after ${limit:-120} s" >>"$log"
    report "$name" $code $((($(date +%s%N) - begin) / 1000000)) "$log"
}

# Turns Meson's log, one JSON object a line, into one line "NAME EXIT-CODE MILLISECONDS" and one log file per test.
split_meson_log() {
    python3 - "$BUILD/meson-logs/testlog.json" "$logs" <<'END'
import json, os, sys
for line in open(sys.argv[1]):
    t = json.loads(line)
    name = t["name"].split(" / ")[-1].replace(" ", "-")
    with open(os.path.join(sys.argv[2], "unit-" + name + ".log"), "w") as log:
        log.write(t.get("stdout") or "")
        log.write(t.get("stderr") or "")
        if t["result"] == "SKIP":
            log.write("\nSKIP: the test says so\n")
    code = {"OK": 0, "EXPECTEDFAIL": 0, "SKIP": 77}.get(t["result"], t.get("returncode") or 1)
    print(name, code, int(t["duration"] * 1000))
END
}

run_units() {
    unit_names=
    for f in $filters; do
        case $f in unit/*) unit_names="$unit_names ${f#unit/}" ;; esac
    done
    case " $filters " in *" unit "*) unit_names= ;; esac
    [ -z "$filters" ] || [ -n "$unit_names" ] || chosen unit || return 0
    rm -f "$BUILD/meson-logs/testlog.json"
    # shellcheck disable=SC2086 # a list
    meson test -C "$BUILD" --no-rebuild $unit_names >"$logs/meson.log" 2>&1
    [ -s "$BUILD/meson-logs/testlog.json" ] || {
        report unit 1 0 "$logs/meson.log"
        return 0
    }
    split_meson_log >"$logs/units"
    while read -r name code ms; do
        report "unit/$name" "$code" "$ms" "$logs/unit-$name.log"
    done <"$logs/units"
}

filters="$*"
for script in tools/check-*.sh; do
    name=${script#tools/check-}
    run_script "check/${name%.sh}" "$script"
done
run_units
for dir in fault guest boot state debug kvm diff lockstep migrate conf api; do
    for script in tests/$dir/*.sh; do
        [ -x "$script" ] || continue
        name=${script#tests/}
        run_script "${name%.sh}" "$script"
    done
done
[ $skipped = 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
