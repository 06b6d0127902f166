#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a fresh checkout to a running Debian guest. At a terminal the guest's console is yours; otherwise the guest runs
# a few commands, prints what they say and powers off, and the exit code is 0 where all of them worked.
#
# INIT=systemd   the full Debian with systemd to its login prompt, instead of the small one
# QUICK=1        no disk image: BusyBox from the initramfs
# CPUS=2 MEMORY=512M ENGINE=xlate

set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
CICADA=${CICADA:-$BUILD/cicada}
CACHE=${CICADA_CACHE:-.cache}
ENGINE=${ENGINE:-xlate}
INIT=${INIT:-small}
QUICK=${QUICK:-}
[ -n "$INIT" ] || INIT=small
case $INIT in
small | systemd) ;;
*)
    echo "make demo: INIT=$INIT: small or systemd" >&2
    exit 1
    ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/cicada-demo.XXXXXX")
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

steps=5
step=0
# do_step WHAT COMMAND...: a progress line; the command's output only where it fails.
do_step() {
    step=$((step + 1))
    what=$1
    shift
    printf '[%d/%d] %-34s' $step $steps "$what"
    begin=$(date +%s%N)
    if "$@" >"$work/log" 2>&1; then
        awk -v a="$begin" -v b="$(date +%s%N)" 'BEGIN { printf "ok  %6.1f s\n", (b - a) / 1e9 }'
    else
        code=$?
        echo "failed"
        cat "$work/log" >&2
        exit $code
    fi
}

images() {
    tools/guest/kernel.sh
    if [ -n "$QUICK" ]; then
        tools/guest/initramfs.sh boot
    else
        tools/guest/initramfs.sh boot
        tools/guest/rootfs.sh "$INIT"
        cp --sparse=always --reflink=auto "$CACHE/debian-$INIT.ext4" "$work/disk.ext4"
    fi
}

# A web server for the guest to fetch from: it sees the host's 127.0.0.1 as 10.0.2.2.
serve() {
    mkdir "$work/www"
    echo "Greetings from the host, $(uname -sr)." >"$work/www/hello.txt"
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 30000))
        busybox httpd -f -p "127.0.0.1:$port" -h "$work/www" 2>/dev/null &
        server=$!
        sleep 0.2
        kill -0 $server 2>/dev/null && return 0
    done
    return 1
}

build() {
    [ -n "${DEMO_NO_BUILD:-}" ] || make --no-print-directory all
}

do_step "tools and libraries" tools/setup.sh build guest
do_step "build" build
guest="Debian, $INIT"
[ -z "$QUICK" ] || guest=BusyBox
do_step "guest: $guest" images
do_step "web server for the guest" serve
url=http://10.0.2.2:$port/hello.txt

cmdline="console=ttyS0"
memory=${MEMORY:-512M}
set --
if [ -z "$QUICK" ]; then
    set -- --disk "$work/disk.ext4"
    cmdline="$cmdline root=/dev/vda"
    [ "$INIT" != small ] || cmdline="$cmdline init=/sbin/cicada-init"
fi
interactive=
[ ! -t 0 ] || [ ! -t 1 ] || interactive=1
[ -n "$interactive" ] || {
    cmdline="$cmdline cicada.demo=1 cicada.url=$url"
    [ -z "$QUICK" ] || cmdline="$cmdline cicada.mode=demo"
}
set -- "$CICADA" run --engine "$ENGINE" --cpus "${CPUS:-2}" --memory "$memory" --kernel "$CACHE/kernel/vmlinuz" \
    --initrd "$CACHE/initramfs-boot.cpio" --cmdline "$cmdline" --net user --serial stdio "$@"

echo "[5/5] boot: $CICADA run --engine $ENGINE ..."
if [ -n "$interactive" ]; then
    echo "      In the guest, 'poweroff' or 'exit' ends it; Ctrl-A x ends it at once; $url is a page to fetch."
    "$@"
    exit
fi
# The shell has no pipefail everywhere: the exit code goes through a file.
{
    code=0
    "$@" </dev/null || code=$?
    echo $code >"$work/code"
} | tee "$work/console"
code=$(cat "$work/code")
[ "$code" = 0 ] || {
    echo "make demo: cicada ended with exit code $code" >&2
    exit "$code"
}
grep -q "CICADA: demo passed" "$work/console" || {
    echo "make demo: the guest did not finish its commands" >&2
    exit 1
}
echo "make demo: the guest booted, ran its commands and powered off."
