# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034
# Shared by the guest image scripts (sourced, not run).
#
# Every image lives in $CACHE/NAME and beside it NAME.key, which holds a hash of everything the image was made from.
# An image is rebuilt only when that hash changes, is built in a scratch folder and moved into place at the end, so
# an interrupted build never leaves a half image behind. A lock per image lets two builds run side by side.

set -eu
GUEST_DIR=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$GUEST_DIR/../.." && pwd)
CACHE=${CICADA_CACHE:-$ROOT/.cache}
SUITE=bookworm
mkdir -p "$CACHE"

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }
need() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || die "needs '$tool'; run tools/setup.sh guest"
    done
}

# key_of STRING FILE...: a hash over a string and the contents of files.
key_of() {
    key_text=$1
    shift
    { printf '%s\n' "$key_text"; cat -- "$@"; } | sha256sum | cut -c1-32
}

# is_fresh NAME KEY: true where the image exists and was made from the same inputs.
is_fresh() {
    [ -z "${CICADA_REFRESH:-}" ] && [ -e "$CACHE/$1" ] && [ "$(cat "$CACHE/$1.key" 2>/dev/null)" = "$2" ]
}

# scratch: makes a folder for the build in $SCRATCH, removed when the script ends.
scratch() {
    SCRATCH=$(mktemp -d "$CACHE/build.XXXXXX")
    chmod 755 "$SCRATCH"
    trap 'rm -rf "$SCRATCH"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# publish FILE NAME KEY: moves a finished file or folder into place.
publish() {
    rm -rf "${CACHE:?}/$2" "$CACHE/$2.key"
    mv "$1" "$CACHE/$2"
    printf '%s\n' "$3" >"$CACHE/$2.key"
}

# lock NAME: one builder of an image at a time; the others wait and then find it done.
lock() {
    mkdir -p "$(dirname "$CACHE/$1")"
    exec 9>"$CACHE/.lock.$(echo "$1" | tr / _)"
    flock 9
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }
took() { awk -v a="$1" -v b="$(now_ms)" 'BEGIN { printf "%.1f s", (b - a) / 1000 }'; }
