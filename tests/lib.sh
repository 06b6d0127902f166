# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034
# Shared by the behaviour tests (sourced). A test is a script that exits 0 where what it asserts holds, 77 where it
# cannot run here, anything else where it does not hold; what it writes is shown when it fails.

set -u
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
CACHE=${CICADA_CACHE:-$ROOT/.cache}
case ${BUILD:=build} in /*) ;; *) BUILD=$ROOT/$BUILD ;; esac
CICADA=${CICADA:-$BUILD/cicada}
ENGINE=${ENGINE:-xlate}
KERNEL=$CACHE/kernel/vmlinuz
VMLINUX=$CACHE/vmlinux
PLAIN=$CACHE/initramfs-plain.cpio
BOOT=$CACHE/initramfs-boot.cpio
T=$(mktemp -d "${TMPDIR:-/tmp}/cicada-test.XXXXXX")
CONSOLE=$T/console
children=

cleanup() {
    for child in $children; do kill "$child" 2>/dev/null; done
    # A guest that hangs must not outlive its test.
    for child in $children; do
        tries=0
        while kill -0 "$child" 2>/dev/null && [ $tries -lt 30 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        kill -9 "$child" 2>/dev/null
    done
    rm -rf "$T"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

fail() {
    echo "FAILED: $*"
    [ ! -s "$CONSOLE" ] || { echo "--- end of the console:" && tail -n 40 "$CONSOLE"; }
    [ ! -s "$T/err" ] || { echo "--- stderr:" && tail -n 20 "$T/err"; }
    exit 1
}
skip() {
    echo "SKIP: $*"
    exit 77
}

[ -x "$CICADA" ] || fail "no program at $CICADA"

# images NAME...: has the guest images made that the test uses.
images() {
    for image in "$@"; do
        case $image in
        kernel) "$ROOT/tools/guest/kernel.sh" ;;
        vmlinux) "$ROOT/tools/guest/vmlinux.sh" ;;
        plain | boot) "$ROOT/tools/guest/initramfs.sh" "$image" ;;
        small | systemd | test) "$ROOT/tools/guest/rootfs.sh" "$image" ;;
        esac || fail "cannot make image '$image'"
    done
}

# copy_disk VARIANT: a private copy of a Debian disk, in $DISK.
copy_disk() {
    DISK=$T/disk.ext4
    cp --sparse=always --reflink=auto "$CACHE/debian-$1.ext4" "$DISK" || fail "cannot copy the disk"
}

# vm SECONDS ARGUMENT...: runs a guest to its end, console in $CONSOLE, exit code in $code.
vm() {
    vm_limit=$1
    shift
    timeout -k 5 "$vm_limit" "$CICADA" run --engine "$ENGINE" --serial stdio "$@" </dev/null >"$CONSOLE" 2>"$T/err"
    code=$?
    [ $code != 124 ] || fail "the guest did not end within $vm_limit s"
}

# start ARGUMENT...: runs a guest in the background; its id in $VM, its keyboard on descriptor 3.
start() {
    mkfifo "$T/keys"
    "$CICADA" run --engine "$ENGINE" --serial stdio "$@" <"$T/keys" >"$CONSOLE" 2>"$T/err" &
    VM=$!
    children="$children $VM"
    exec 3>"$T/keys"
}

# finish SECONDS: waits for the guest that start began; its exit code in $code.
finish() {
    tries=$(($1 * 10))
    while kill -0 "$VM" 2>/dev/null && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    kill -0 "$VM" 2>/dev/null && fail "the guest did not end within $1 s"
    wait "$VM"
    code=$?
}

# wait_console SECONDS TEXT [COUNT]: until the console shows TEXT (COUNT times).
wait_console() {
    tries=$(($1 * 10))
    until [ "$(grep -acF -- "$2" "$CONSOLE")" -ge "${3:-1}" ]; do
        [ $tries -gt 0 ] || fail "the console did not show '$2' within $1 s"
        kill -0 "$VM" 2>/dev/null || fail "the guest ended before the console showed '$2'"
        sleep 0.1
        tries=$((tries - 1))
    done
}

shows() { grep -aqF -- "$1" "$CONSOLE" || fail "the console does not show '$1'"; }
ends_with() { [ "$code" = "$1" ] || fail "exit code $code, wanted $1"; }

# with_script BASE SCRIPT OUT: an initramfs that runs the shell script SCRIPT in cicada.mode=script.
with_script() {
    mkdir -p "$T/add/cicada"
    cp "$2" "$T/add/cicada/script"
    { cat "$1" && (cd "$T/add" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0); } >"$3" || fail "cpio"
}

# serve FOLDER: an HTTP server on 127.0.0.1:$PORT, which guests reach as 10.0.2.2:$PORT.
serve() {
    for _ in 1 2 3 4 5 6 7 8; do
        PORT=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 30000))
        busybox httpd -f -p "127.0.0.1:$PORT" -h "$1" 2>/dev/null &
        server=$!
        sleep 0.2
        if kill -0 $server 2>/dev/null; then
            children="$children $server"
            return
        fi
    done
    skip "no HTTP server could be started"
}

# refused CULPRIT ARGUMENT...: cicada must say no with exit code 1, a message that holds CULPRIT (or CULPRIT|ANOTHER),
# and no output.
refused() {
    culprit=$1
    shift
    timeout -k 5 30 "$CICADA" run --engine "$ENGINE" "$@" </dev/null >"$T/out" 2>"$T/err"
    code=$?
    what=$(printf '%s ' "$@" | cut -c1-200)
    [ $code = 1 ] || { complain "run $what: exit code $code, wanted 1"; return; }
    names_culprit || { complain "run $what: the message does not name '$culprit'"; return; }
    [ ! -s "$T/out" ] || { complain "run $what: wrote to stdout"; return; }
    [ "$(wc -l <"$T/err")" -le 5 ] || { complain "run $what: more than five lines of message"; return; }
    echo "refused: $what"
}
names_culprit() {
    printf '%s\n' "$culprit" | tr '|' '\n' >"$T/culprits"
    grep -qiFf "$T/culprits" "$T/err"
}
wrong=0
complain() {
    echo "WRONG: $*"
    sed 's/^/    /' "$T/err" | head -n 5
    wrong=$((wrong + 1))
}
all_refused() { [ $wrong = 0 ] || fail "$wrong cases"; }

# diff_bound COUNT: tests/diff stops after so many comparisons (the cases are the same on every machine), or, where the
# caller gave a time, after that. A minute is the most for a machine that is very slow.
diff_bound() {
    [ -n "${CICADA_DIFF_SECONDS:-}" ] || export CICADA_DIFF_COUNT="$1" CICADA_DIFF_SECONDS=60
}

# without_userfaultfd COMMAND...: runs it as most containers do, with userfaultfd(2) and its device refused (EPERM).
without_userfaultfd() {
    python3 - "$@" <<'END2'
import ctypes, os, struct, sys
allow, refuse = (6, 0, 0, 0x7FFF0000), (6, 0, 0, 0x00050001)
code = [(0x20, 0, 0, 0),          # load the number of the call
        (0x15, 4, 0, 323),        # userfaultfd: refuse
        (0x15, 0, 2, 16),         # not ioctl: allow
        (0x20, 0, 0, 24),         # load the request
        (0x15, 1, 0, 0xAA00),     # USERFAULTFD_IOC_NEW: refuse
        allow, refuse]
text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
END2
}
