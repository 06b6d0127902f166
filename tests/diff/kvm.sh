#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Random user-mode instructions on this machine's /dev/kvm, at native speed, against the bare CPU and xlate: what the KVM
# engine puts into a vCPU and takes out of it, and how an exception comes back.
# timeout: 120
. "$(dirname "$0")/../lib.sh"
[ -w /dev/kvm ] || skip "no /dev/kvm"
CICADA_DIFF_KVM=64 CICADA_DIFF_SECONDS=${CICADA_DIFF_SECONDS:-2} "$BUILD/tests/diff/diff" int flow string x87 mmx sse avx
