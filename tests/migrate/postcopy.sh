#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Post-copy: the guest moves after one pass over its memory, or before any, gets the rest as it asks for it, and finds
# nothing changed; over a slow connection it runs long before all of it is there. What the host forbids is refused before
# anything has happened, and a connection that breaks later ends both sides with the reason.
# timeout: 300
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

images kernel plain
ticking_initrd
dd if=/dev/urandom of="$T/disk" bs=1M count=8 2>/dev/null

# migrate FROM TO ENDPOINT OPTION...: and the figures in $T/figures.
migrate() {
    from=$1 to=$2
    target_vm "$to" "$3"
    shift 3
    timeout 100 "$CICADA" migrate "$from" --to "$AT" --json "$@" >"$T/figures" 2>"$T/err"
    moved=$?
    ! grep -q "userfaultfd is forbidden\|userfaultfd for faults" "$T/err" || skip "$(cat "$T/err")"
    [ $moved = 0 ] || fail "migrate $from $*: $(cat "$T/err" "$T/$to.err")"
    exit_of "$SOURCE" 10
    ends_with 6
    SOURCE=$TARGET
    goes_on "$to" "$(last_tick "$T/$from.con")"
    echo "$from to $to, $*: $(tr -d '\n' <"$T/figures")"
    rm -f "$T/$from.con" "$T/$from.err"
}

# goes_on NAME TICK: its guest counts on from there and has found nothing changed.
goes_on() {
    wait_file 60 "$T/$1.con" "tick $(($2 + 20))"
    first=$(sed -n 's/^tick \([0-9]*\)\r*$/\1/p' "$T/$1.con" | head -n 1)
    [ "$first" -le $(($2 + 2)) ] || fail "$1 began at tick $first, the source had come to $2"
    nothing_wrong
}

source_vm a --memory 256M --cpus 2 --disk "$T/disk" --initrd "$T/initrd" --cmdline "$TICKING"
wait_file 60 "$T/a.con" "tick 5"

# A target that must not have it says so before a page has come; the guest goes on.
without_userfaultfd "$CICADA" receive "unix:$T/socket" --engine "$ENGINE" --name x --serial null >"$T/x.out" 2>"$T/x.err" &
TARGET=$!
children="$children $TARGET"
wait_file 10 "$T/x.err" "waiting at"
timeout 100 "$CICADA" migrate a --to "unix:$T/socket" --postcopy >"$T/out" 2>"$T/err" && fail "moved without userfaultfd"
grep -q "the target says: post-copy: userfaultfd is forbidden here.*it goes on here" "$T/err" ||
    fail "without userfaultfd: $(cat "$T/err")"
exit_of "$TARGET" 10
ends_with 2
[ "$(state a)" = running ] || fail "refused, and the source is $(state a)"
migrate a b "unix:$T/socket" --postcopy
migrate b c tcp:127.0.0.1:0 --postcopy=now
grep -q '"round": 1,' "$T/figures" || fail "more than one round"

# 4 MiB a second: the guest ticks at the target while most of it is at the source, which cannot be cancelled any more.
target_vm d "unix:$T/socket"
timeout 100 "$CICADA" migrate c --to "$AT" --postcopy=now --bandwidth 4M --json >"$T/figures" 2>"$T/err" &
migrating=$!
children="$children $migrating"
tick=$(last_tick "$T/c.con")
wait_file 60 "$T/d.con" "tick $((tick + 20))"
[ "$(state c),$(state d)" = post-copy,running ] || fail "in post-copy the source is $(state c), the target $(state d)"
"$CICADA" migrate c --cancel 2>"$T/cancel" && fail "cancelled in post-copy"
grep -q "post-copy" "$T/cancel" || fail "not cancelled: $(cat "$T/cancel")"
"$CICADA" resume c 2>/dev/null && fail "the source was resumed in post-copy"
# The one that has not all of its memory yet is paused and goes on like any other.
"$CICADA" pause d || fail "pause in post-copy"
"$CICADA" resume d || fail "resume in post-copy"
# A snapshot needs all of it, and so fetches it.
"$CICADA" snapshot d --to "$T/snap" >/dev/null || fail "snapshot in post-copy"
"$CICADA" snapshot verify "$T/snap" >/dev/null || fail "the snapshot in post-copy does not verify"
wait $migrating || fail "slow post-copy: $(cat "$T/err" "$T/d.err")"
exit_of "$SOURCE" 10
ends_with 6
goes_on d "$(last_tick "$T/c.con")"
echo "c to d, slow: $(tr -d '\n' <"$T/figures")"
SOURCE=$TARGET

# Disks that are copied go over first; then the memory that is left.
target_vm copied "unix:$T/socket" --disk "$T/copy"
timeout 100 "$CICADA" migrate d --to "$AT" --postcopy --copy-disks --json >"$T/figures" 2>"$T/err" ||
    fail "post-copy with disks: $(cat "$T/err" "$T/copied.err")"
exit_of "$SOURCE" 10
ends_with 6
goes_on copied "$(last_tick "$T/d.con")"
cmp "$T/disk" "$T/copy" || fail "the copy of the disk differs"
SOURCE=$TARGET

# now_slowly NAME: post-copy from the first page on, slow enough to be cut; $migrating is the client.
now_slowly() {
    timeout 100 "$CICADA" migrate "$1" --to "$AT" --postcopy=now --bandwidth 1M >"$T/out" 2>"$T/err" &
    migrating=$!
    children="$children $migrating"
}

# The target is killed while the source has pages of it: both are gone, and the source says so.
target_vm e "unix:$T/socket"
now_slowly copied
wait_file 60 "$T/e.con" "tick"
kill -9 "$TARGET"
wait $migrating
[ $? = 2 ] || fail "a lost guest: exit code of migrate"
grep -q "the guest is lost" "$T/err" || fail "a lost guest: $(cat "$T/err")"
exit_of "$SOURCE" 10
ends_with 2

# The same with the source: the target cannot go on and says so.
source_vm f --memory 128M --initrd "$T/initrd" --cmdline "$TICKING"
wait_file 60 "$T/f.con" "tick 5"
target_vm g "unix:$T/socket"
now_slowly f
wait_file 60 "$T/g.con" "tick"
kill -9 "$SOURCE"
wait $migrating && fail "migrate of a killed source ended well"
exit_of "$TARGET" 10
ends_with 2
grep -q "the guest of 'g' is lost: the source has closed the connection" "$T/g.err" || fail "g says: $(cat "$T/g.err")"
[ "$(state f),$(state g)" = gone,gone ] || fail "after the end the source is $(state f), the target $(state g)"

[ "$("$CICADA" migrate --help | grep -c -- '--postcopy\[=now\]')" = 1 ] || fail "--help does not show the optional value"
"$CICADA" migrate f --to "$AT" --postcopy=soon 2>"$T/err" && fail "--postcopy=soon"
grep -q "'soon' is not one of now" "$T/err" || fail "--postcopy=soon: $(cat "$T/err")"
