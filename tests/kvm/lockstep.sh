#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# once more: the outer machine is emulated and may lose a timer or panic on a busy host (docs/ROADMAP.md)
# timeout: 500
# Lockstep of both engines on true hardware virtualization: the tiny guests run on xlate and on kvm at once, and their
# states and memory are compared after every access, for a part of them also after every instruction (tests/lockstep).
# Cases in which this bed's processor is known to be wrong are left out (tests/guest/beds).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"

LOCKSTEP_GUESTS=${LOCKSTEP_GUESTS:-paging transfer user sensitive smc debug} # others: docs/ROADMAP.md

# shellcheck disable=SC2086 # a list
build_guests $LOCKSTEP_GUESTS
outer_new
add_program "$BUILD/tests/lockstep/lockstep" g/lockstep
for guest in $LOCKSTEP_GUESTS; do
    cp "$GUESTS/$guest.elf" "$OUTER/g/"
    cat >>"$OUTER/script" <<END
busybox timeout 100 /g/lockstep --cmdline "$LOCKSTEP_LEFT_OUT$(beds_left_out kvm-amd "$guest" all)" /g/$guest.elf >/tmp/out 2>&1
code=\$?
sed "s/^/$guest: /" /tmp/out
echo "$guest: exit \$code"
END
done
cat >>"$OUTER/script" <<END
busybox timeout 100 /g/lockstep --quiet --every 1 --steps ${LOCKSTEP_STEPS:-20000} \\
    --cmdline "$LOCKSTEP_LEFT_OUT$(beds_left_out kvm-amd sensitive all)" /g/sensitive.elf >/tmp/out 2>&1
code=\$?
sed "s/^/steps: /" /tmp/out
echo "steps: exit \$code"
END
outer_run 350
for guest in $LOCKSTEP_GUESTS steps; do shows "$guest: exit 0"; done
