#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A guest under load moves again and again: it copies one disk to another and reads it back, keeps checksums of its
# memory, and fetches files by network (a connection ends with its source's process, the next one must work).
# Two of three migrations are by post-copy, where the host permits it. MIGRATIONS=20 is the long form.
# timeout: 900
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

images kernel boot
loaded_initrd

mac=52:54:00:12:34:56
source_vm vm0 --memory 256M --cpus 2 --disk "$T/a,ro" --disk "$T/b" --net "user,mac=$mac" --initrd "$T/initrd" \
    --cmdline "$LOADED"
wait_file 120 "$T/vm0.con" "copy 1"
wait_file 120 "$T/vm0.con" "fetched 1"
n=0
permitted=yes
while [ $n -lt "${MIGRATIONS:-3}" ]; do
    next=vm$((n + 1))
    [ $((n % 2)) = 0 ] && at=tcp:127.0.0.1:0 || at=unix:$T/socket
    target_vm $next "$at"
    case $permitted$((n % 3)) in yes1) how=--postcopy ;; yes2) how=--postcopy=now ;; *) how="" ;; esac
    # shellcheck disable=SC2086 # empty or one word
    if ! timeout 200 "$CICADA" migrate vm$n --to "$AT" --json $how >"$T/figures" 2>"$T/err"; then
        grep -q "post-copy: userfaultfd" "$T/err" || fail "migrate $how: $(cat "$T/err")"
        permitted=no
        exit_of "$TARGET" 10
        continue
    fi
    exit_of "$SOURCE" 10
    ends_with 6
    copies=$(last vm$n copy) fetches=$(last vm$n fetched)
    wait_file 120 "$T/$next.con" "copy $((copies + 2))"
    wait_file 120 "$T/$next.con" "fetched $((fetches + 2))"
    nothing_wrong
    SOURCE=$TARGET
    n=$((n + 1))
    echo "migration $n $how: $(tr -d ' \n' <"$T/figures")"
done
"$CICADA" stop vm$n
exit_of "$TARGET" 10
ends_with 0
