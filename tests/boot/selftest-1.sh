#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
# Known answers computed in the guest, one vCPU.
. "$(dirname "$0")/../lib.sh"
images kernel boot
vm 280 --kernel "$KERNEL" --initrd "$BOOT" --cpus 1 --cmdline "console=ttyS0 quiet cicada.mode=selftest cicada.cpus=1"
shows "CICADA: selftest passed"
ends_with 0
