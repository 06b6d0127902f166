#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over src (or the files named) with a short list of checks that find faults rather than tastes.
#
# usage: lint.sh [FILE]...

cd "$(dirname "$0")/.." || exit 1
checks='-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions'
checks="$checks,-bugprone-reserved-identifier,-bugprone-branch-clone"
checks="$checks,-bugprone-implicit-widening-of-multiplication-result"
checks="$checks,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
# Options of gcc that clang does not know are taken out of the list of commands.
mkdir -p "${BUILD:-build}/tidy"
sed 's/ -m\(inline-all-stringops\|stringop-strategy=[a-z0-9_]*\)//g' "${BUILD:-build}/compile_commands.json" \
    >"${BUILD:-build}/tidy/compile_commands.json"
# shellcheck disable=SC2046 # a list of names without spaces
[ $# != 0 ] || set -- $(find src -name '*.c' | LC_ALL=C sort)
clang-tidy --quiet -p "${BUILD:-build}/tidy" --checks="$checks" --warnings-as-errors='*' \
    "$@" 2>/dev/null
