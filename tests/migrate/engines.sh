#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From one engine to the other and back: a tiny guest that writes the letters a to p in turn, on kvm, then on xlate, then
# on kvm. Its processor has what KVM gives on this host, all the way. The first kvm has only the local APICs in the kernel
# and its dirty log in rings.
# timeout: 180
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../letters.sh"

[ -w /dev/kvm ] || skip "no /dev/kvm here"
letters_kernel "$T/kernel"
KERNEL=$T/kernel

hop() { # FROM TO ENGINE
    ENGINE=$3
    target_vm "$2" "unix:$T/socket"
    timeout 60 "$CICADA" migrate "$1" --to "$AT" >"$T/out" 2>"$T/err" || fail "to $3: $(cat "$T/err")"
    exit_of "$SOURCE" 20
    ends_with 6
    letters "$2" 20
    [ "$("$CICADA" ps | awk -v name="$2" '$1 == name { print $7 }')" = "$3" ] || fail "$2 does not run on $3"
    SOURCE=$TARGET
}

ENGINE=kvm
source_vm a --memory 32M --boot multiboot --kvm-opts irqchip=split,dirty=ring
letters a 20
hop a b xlate
hop b c kvm
"$CICADA" stop c
in_turn "$T/a.con" "$T/b.con" "$T/c.con"
