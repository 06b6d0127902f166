#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Enforces the layers of docs/ARCHITECTURE.md on every #include "..." below src/: a file includes its own folder or one
# above it in the list; front ends do not include each other; one engine does not include the other, and only files
# directly in src/engine name an engine; system calls for randomness and time stay behind core/nondet.h.

cd "$(dirname "$0")/.." || exit 1

# shellcheck disable=SC2046 # a list of names without spaces
awk '
BEGIN {
    n = split("util core arch/x86 engine bus backend dev virtio boot state debug sandbox vmm cli", order, " ")
    for (i = 1; i <= n; i++) rank[order[i]] = i
    rank["api"] = rank["oci"] = rank["lib"] = rank["cli"]
    bad = 0
}
# The layer of a path below src/.
function layer(path) {
    if (path ~ /^arch\/x86\//) return "arch/x86"
    sub("/.*", "", path)
    return path
}
function complain(why) { printf "%s:%d: %s\n", FILENAME, FNR, why; bad++ }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    target = $0
    sub("^[^\"]*\"", "", target)
    sub("\".*", "", target)
    if (target == "cicada.h") next
    from = FILENAME
    sub("^src/", "", from)
    a = layer(from)
    b = layer(target)
    if (target !~ "/") { complain("\"" target "\" is not written from src/"); next }
    if (!(a in rank)) { complain("folder " a " is in no layer"); next }
    if (!(b in rank)) { complain("\"" target "\" is in no layer"); next }
    if (rank[b] > rank[a]) complain("layer " a " includes \"" target "\" from below")
    else if (rank[b] == rank[a] && a != b) complain("front end " a " includes front end \"" target "\"")
    if (target ~ /^engine\/(kvm|xlate)\//) {
        engine = target
        sub("^engine/", "", engine)
        sub("/.*", "", engine)
        if (from !~ /^engine\/[^\/]*$/ && from !~ ("^engine/" engine "/")) complain("only src/engine names an engine: \"" target "\"")
    }
}
END { exit bad > 0 }
' $(find src -name '*.[ch]' | LC_ALL=C sort) # names without spaces
