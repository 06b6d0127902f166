#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
# The tiny guests of tests/guest, written against the manual and run on xlate there, on true hardware virtualization:
# where both agree the guest is right about the processor.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/guest/lib/common.sh"
guests="except paging transfer user interrupts sensitive smc debug"
# shellcheck disable=SC2086 # a list
build_guests $guests
outer_new
for guest in $guests; do cp "$GUESTS/$guest.elf" "$OUTER/g/"; done
cat >"$OUTER/script" <<END
for guest in $guests; do
    for chips in kernel user; do
        busybox timeout 60 cicada run --engine kvm --kvm-opts irqchip=\$chips --memory 64M --debug-exit \\
            --kernel /g/\$guest.elf </dev/null >/tmp/out 2>/tmp/err
        code=\$?
        sed "s/^/\$guest \$chips: /" /tmp/out /tmp/err
        echo "\$guest \$chips: exit \$code"
    done
done
END
outer_run 190
