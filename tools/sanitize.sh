#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds in build-NAME with a sanitizer of gcc and runs the unit tests there.
# xlate handles SIGSEGV itself and runs guest code out of its own cache, neither of which a sanitizer sees into;
# the units do not need guest code.
#
# usage: sanitize.sh asan|ubsan|tsan

set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
asan) kind=address ;;
ubsan) kind=undefined ;;
tsan) kind=thread ;;
*)
    echo "usage: tools/sanitize.sh asan|ubsan|tsan" >&2
    exit 1
    ;;
esac
tools/setup.sh build
dir=build-$1
[ -e "$dir/build.ninja" ] || meson setup "$dir" -Db_sanitize=$kind -Db_lundef=false >/dev/null
ninja -C "$dir" --quiet
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=1:handle_segv=0:use_sigaltstack=0
BUILD=$dir tests/run.sh unit
