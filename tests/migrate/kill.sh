#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kill -9 of one side at a random moment of a migration. After the recovery that docs/MIGRATION.md describes exactly one
# VM runs, and its guest is whole; unless the one that was killed was the only one that had the guest, or, in post-copy,
# had a part of it. KILLS=50 is the long form.
# timeout: 900
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

images kernel plain
ticking_initrd

# The recovery: a side that runs is right, and the other one is stopped. Where none runs, the one in doubt goes on, the
# target first.
recover() {
    a=$(state a) b=$(state b)
    case $a,$b in
    running,gone | gone,running) ;;
    running,in-doubt) "$CICADA" stop b ;;
    in-doubt,running) "$CICADA" stop a ;;
    in-doubt,in-doubt) "$CICADA" stop a && "$CICADA" resume b ;;
    in-doubt,gone) "$CICADA" resume a ;;
    gone,in-doubt) "$CICADA" resume b ;;
    *) fail "try $try: killed $victim after $delay s: no recovery for source $a, target $b: $(cat "$T/migrate.out" "$T/a.err" "$T/b.err")" ;;
    esac || fail "try $try: recovery from source $a, target $b failed"
    echo "try $try: killed $victim after $delay s: source $a, target $b"
}

check_one_runs() {
    a=$(state a) b=$(state b)
    case $a,$b in
    running,gone) runs=a ;;
    gone,running) runs=b ;;
    *) fail "try $try: after the recovery source $a, target $b" ;;
    esac
    before=$(last_tick "$T/$runs.con")
    tries=100
    until [ "$(last_tick "$T/$runs.con")" -gt "${before:-0}" ] 2>/dev/null; do
        [ $tries -gt 0 ] || fail "try $try: the guest of $runs stands still at tick ${before:-none}"
        sleep 0.1
        tries=$((tries - 1))
    done
    ! grep -aqs WRONG "$T/a.con" "$T/b.con" || fail "try $try: the guest found its memory changed"
    "$CICADA" stop "$runs" || fail "try $try: cannot stop $runs"
}

one_try() {
    rm -f "$T"/[ab].*
    source_vm a --memory 128M --initrd "$T/initrd" --cmdline "$TICKING"
    target_vm b "unix:$T/socket"
    wait_file 60 "$T/a.con" "tick 5"
    # shellcheck disable=SC2086 # lists
    "$CICADA" migrate a --to "unix:$T/socket" $slow $postcopy >"$T/migrate.out" 2>&1 &
    migrate=$!
    children="$children $migrate"
    sleep "$delay"
    case $victim in source) kill -9 "$SOURCE" ;; target) kill -9 "$TARGET" ;; esac 2>/dev/null
    wait $migrate
    moved=$?
    wait_settled
    if [ $moved = 0 ] && [ $victim = target ]; then
        # The guest had moved before: what was killed is a VM like any other.
        [ "$(state a),$(state b)" = gone,gone ] || fail "try $try: moved and killed: source $(state a), target $(state b)"
        echo "try $try: too late"
        return
    fi
    # A source that dies before the target has the whole guest takes it along, as any VM that is killed does.
    if [ $victim = source ] && grep -q "receive 'b': the source has closed the connection" "$T/b.err"; then
        [ "$(state a),$(state b)" = gone,gone ] || fail "try $try: source $(state a), target $(state b)"
        echo "try $try: killed source after $delay s: it was all there was"
        return
    fi
    # In post-copy neither side has the whole guest; each says so, and ends.
    if [ -n "$postcopy" ] && grep -qs "the guest is lost\|the guest of 'b' is lost" "$T/migrate.out" "$T/b.err"; then
        [ "$(state a),$(state b)" = gone,gone ] || fail "try $try: lost: source $(state a), target $(state b)"
        echo "try $try: killed $victim after $delay s of $postcopy: lost"
        return
    fi
    recover
    check_one_runs
}

# Until no side is in the middle of something.
wait_settled() {
    tries=150
    while :; do
        case $(state a),$(state b) in *receiving* | *handing-over* | *post-copy* | *lost* | *moved* | *ending*) ;; *) break ;; esac
        [ $tries -gt 0 ] || fail "try $try: still source $(state a), target $(state b)"
        sleep 0.1
        tries=$((tries - 1))
    done
}

try=0
while [ $try -lt "${KILLS:-6}" ]; do
    random=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    [ $((random % 2)) = 0 ] && victim=source || victim=target
    # Half of the tries around the hand-over of a fast migration, half within a slow one.
    if [ $((random / 2 % 2)) = 0 ]; then
        slow="" delay=0.$(printf %03d $((random / 4 % 300)))
    else
        slow="--bandwidth 20M" delay=$((random / 4 % 3)).$(printf %03d $((random / 16 % 1000)))
    fi
    case $((random / 1048576 % 3)) in 0) postcopy="" ;; 1) postcopy=--postcopy ;; 2) postcopy=--postcopy=now ;; esac
    one_try
    try=$((try + 1))
done
