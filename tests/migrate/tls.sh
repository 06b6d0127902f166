#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Migration over TLS: both sides must show a certificate of the CA, and what goes over the network is not the guest's
# memory.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"

command -v openssl >/dev/null || skip "no openssl program to make certificates with"
images kernel plain
ticking_initrd

# authority DIRECTORY, certificate DIRECTORY ROLE: as QEMU and libvirt name the files.
authority() {
    mkdir -p "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=CA of $(basename "$1")" -keyout "$1/ca-key.pem" \
        -out "$1/ca-cert.pem" >/dev/null 2>&1 || fail "openssl cannot make a CA"
}
certificate() {
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$2" -addext "subjectAltName=DNS:$2.example,IP:127.0.0.1" \
        -keyout "$1/$2-key.pem" -out "$T/request.pem" >/dev/null 2>&1 &&
        openssl x509 -req -in "$T/request.pem" -days 2 -CA "$1/ca-cert.pem" -CAkey "$1/ca-key.pem" -CAcreateserial \
            -copy_extensions copy -out "$1/$2-cert.pem" >/dev/null 2>&1 || fail "openssl cannot sign"
}
authority "$T/good"
certificate "$T/good" server
certificate "$T/good" client
authority "$T/bad"
certificate "$T/bad" client
cp "$T/good/ca-cert.pem" "$T/bad/ca-cert.pem" # it trusts the target, but is not trusted

source_vm a --memory 128M --initrd "$T/initrd" --cmdline "$TICKING"
target_vm b tcp:127.0.0.1:0 --tls "$T/good"
wait_file 60 "$T/a.con" "tick 3"

# try CULPRIT ARGUMENT...: must be refused, and the guest goes on.
refused_migration() {
    culprit=$1
    shift
    timeout 60 "$CICADA" migrate a --to "$AT" "$@" >"$T/out" 2>"$T/err" && fail "migrated with $*"
    grep -qiF -- "$culprit" "$T/err" || fail "migrate $*: the message does not name '$culprit': $(cat "$T/err")"
    [ "$(state a)" = running ] || fail "migrate $*: the source is $(state a)"
}
refused_migration "mismatch" --tls "$T/good" --tls-name other.example
refused_migration "TLS" --tls "$T/bad"
refused_migration "ca-cert.pem" --tls "$T/nowhere"
timeout 60 "$CICADA" migrate a --to "$AT" >"$T/out" 2>"$T/err" && fail "migrated without TLS"
[ "$(state a)" = running ] || fail "without TLS: the source is $(state a)"

timeout 60 "$CICADA" migrate a --to "$AT" --tls "$T/good" --tls-name server.example >"$T/out" 2>"$T/err" ||
    fail "not migrated: $(cat "$T/err" "$T/b.err")"
exit_of "$SOURCE" 10
ends_with 6
[ "$(state b)" = running ] || fail "the target is $(state b)"
after=$(last_tick "$T/a.con")
wait_file 20 "$T/b.con" "tick $((after + 20))"
"$CICADA" stop b
exit_of "$TARGET" 10
ends_with 0
