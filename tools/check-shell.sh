#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ShellCheck has nothing to say about any script of the repository.

cd "$(dirname "$0")/.." || exit 1
command -v shellcheck >/dev/null 2>&1 || {
    echo "SKIP: shellcheck is not installed"
    exit 77
}
# shellcheck disable=SC2046 # a list of names without spaces
shellcheck -S warning $(find tools tests bench -name '*.sh') .ci/run tools/guest/files/init \
    tools/guest/files/cicada-init tools/guest/files/demo tools/guest/files/selftest tools/guest/files/udhcpc \
    tools/guest/files/net-up
