#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
# A code cache so small that it is emptied hundreds of times, under two vCPUs: nobody goes on with code that is gone.
. "$(dirname "$0")/../lib.sh"
images kernel boot
[ "$ENGINE" = xlate ] || skip "only xlate has a code cache"
vm 280 --kernel "$KERNEL" --initrd "$BOOT" --cpus 2 --code-cache 2M -v --cmdline \
    "console=ttyS0 quiet cicada.mode=selftest cicada.cpus=2"
shows "CICADA: selftest passed"
ends_with 0
flushes=$(sed -n 's/.*cache_flushes: //p' "$T/err")
[ "${flushes:-0}" -gt 50 ] || fail "the cache was emptied only ${flushes:-0} times"
