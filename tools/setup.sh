#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sees to it that the tools and libraries which a step needs are installed.
# As root on Debian or Ubuntu it installs what is missing; elsewhere it prints the command that would.
# Says nothing and takes a few hundredths of a second where nothing is missing.
#
# usage: setup.sh [build] [guest] [test] [bench] [fuzz] [lint]     (default: build)

set -eu

# Each set: Debian's names. The other distributions' are derived in names_for.
deb_build="meson ninja-build pkg-config libzydis-dev libslirp-dev libseccomp-dev liburing-dev libjansson-dev
    libzstd-dev liblz4-dev liblzma-dev zlib1g-dev libssl-dev libcmocka-dev"
deb_guest="mmdebstrap busybox-static cpio e2fsprogs zstd xz-utils lz4 kmod python3-minimal"
deb_test="gdb openssl expect acpica-tools nasm qemu-system-x86 libcmocka-dev python3 clang-format shellcheck"
deb_bench="qemu-system-x86 python3 lua5.4 gzip sqlite3 zstd"
deb_fuzz="clang libclang-rt-dev"
deb_lint="clang-format clang-tidy shellcheck"

say() { printf '%s\n' "$*" >&2; }

wanted=
for set in "${@:-build}"; do
    case $set in
    build) wanted="$wanted $deb_build" ;;
    guest) wanted="$wanted $deb_guest" ;;
    test) wanted="$wanted $deb_test" ;;
    bench) wanted="$wanted $deb_bench" ;;
    fuzz) wanted="$wanted $deb_fuzz" ;;
    lint) wanted="$wanted $deb_lint" ;;
    *)
        say "setup.sh: unknown set '$set'; build, guest, test, bench, fuzz or lint"
        exit 1
        ;;
    esac
done
[ "$(id -u)" = 0 ] || case " $wanted " in *mmdebstrap*) wanted="$wanted fakeroot uidmap" ;; esac

# The words of $wanted that dpkg does not have installed.
missing_deb() {
    # shellcheck disable=SC2086 # a list
    have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p' || true)
    for p in $wanted; do
        case "
$have
" in *"
$p
"*) ;; *) printf '%s ' "$p" ;; esac
    done
}

# names_for DISTRIBUTION: translates $wanted, one name a line.
names_for() {
    for p in $wanted; do
        case $1:$p in
        *:meson | *:openssl | *:cpio | *:e2fsprogs | *:zstd | *:lz4 | *:kmod | *:expect | *:gdb | *:nasm | *:clang | *:fakeroot) echo "$p" ;;
        fedora:ninja-build) echo ninja-build ;;
        *:ninja-build) echo ninja ;;
        fedora:pkg-config) echo pkgconf-pkg-config ;;
        *:pkg-config) echo pkgconf ;;
        fedora:lib*-dev) echo "$p" | sed 's/^libjansson-dev/jansson-devel/; s/^libzydis-dev/zydis-devel/
            s/^liblz4-dev/lz4-devel/; s/^liblzma-dev/xz-devel/; s/^libssl-dev/openssl-devel/; s/-dev$/-devel/' ;;
        arch:lib*-dev) echo "$p" | sed 's/^libslirp-dev/libslirp/; s/^libseccomp-dev/libseccomp/
            s/^liburing-dev/liburing/; s/^liblzma-dev/xz/; s/^libssl-dev/openssl/; s/^lib\(.*\)-dev$/\1/' ;;
        alpine:lib*-dev) echo "$p" | sed 's/^libjansson-dev/jansson-dev/; s/^libzydis-dev/zydis-dev/
            s/^liblz4-dev/lz4-dev/; s/^liblzma-dev/xz-dev/; s/^libcmocka-dev/cmocka-dev/; s/^libzstd-dev/zstd-dev/; s/^libssl-dev/openssl-dev/' ;;
        fedora:zlib1g-dev) echo zlib-devel ;;
        arch:zlib1g-dev) echo zlib ;;
        alpine:zlib1g-dev) echo zlib-dev ;;
        fedora:xz-utils | arch:xz-utils | alpine:xz-utils) echo xz ;;
        *:busybox-static) [ "$1" = alpine ] && echo busybox-static || echo busybox ;;
        *:mmdebstrap) [ "$1" = alpine ] && echo debootstrap || echo mmdebstrap ;;
        *:python3-minimal) [ "$1" = arch ] && echo python || echo python3 ;;
        fedora:acpica-tools) echo acpica-tools ;;
        *:acpica-tools) [ "$1" = arch ] && echo acpica || echo iasl ;;
        fedora:qemu-system-x86) echo qemu-system-x86-core ;;
        *:qemu-system-x86) [ "$1" = arch ] && echo qemu-system-x86 || echo qemu-system-x86_64 ;;
        *:clang-format | *:clang-tidy) [ "$1" = alpine ] && echo clang-extra-tools ||
            { [ "$1" = arch ] && echo clang || echo clang-tools-extra; } ;;
        fedora:shellcheck) echo ShellCheck ;;
        *:shellcheck) echo shellcheck ;;
        *:uidmap) [ "$1" = alpine ] && echo shadow-uidmap || { [ "$1" = arch ] && echo shadow || echo shadow-utils; } ;;
        esac
    done | sort -u | tr '\n' ' '
}

# Without dpkg: what cannot be found by name of tool or library. Enough to stay silent on a machine that has it all.
missing_elsewhere() {
    for p in $wanted; do
        case $p in
        ninja-build) command -v ninja || command -v samu ;;
        libzydis-dev) find /usr/include /usr/local/include -path '*Zydis/Zydis.h' | grep . ;;
        libslirp-dev | libcmocka-dev) pkg-config --exists "$(echo "$p" | sed 's/libcmocka/cmocka/; s/-dev$//; s/libslirp/slirp/')" ;;
        libjansson-dev) pkg-config --exists jansson ;;
        zlib1g-dev) pkg-config --exists zlib ;;
        lib*-dev) pkg-config --exists "${p%-dev}" ;;
        busybox-static) command -v busybox ;;
        e2fsprogs) command -v mke2fs ;;
        xz-utils) command -v xz ;;
        kmod) command -v depmod ;;
        python3-minimal) command -v python3 ;;
        acpica-tools) command -v iasl ;;
        qemu-system-x86) command -v qemu-system-x86_64 ;;
        uidmap) command -v newuidmap ;;
        *) command -v "$p" ;;
        esac >/dev/null 2>&1 || printf '%s ' "$p"
    done
}

install_deb() {
    say "setup: installing $1"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list
    if apt-get install -y --no-install-recommends $1 >"$log" 2>&1 ||
        { apt-get update >"$log" 2>&1 && apt-get install -y --no-install-recommends $1 >>"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    say "setup: apt-get could not install them"
    return 1
}

if command -v dpkg-query >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    missing=$(missing_deb)
    [ -n "$missing" ] || exit 0
    [ "$(id -u)" != 0 ] || { install_deb "$missing" && exit 0; }
else
    missing=$(missing_elsewhere)
    [ -n "$missing" ] || exit 0
fi
say "Cicada needs packages that are not installed here (Debian's names): $missing"
say "Install them by the line for your system and run make again:"
say "  Debian, Ubuntu:  sudo apt-get install $missing"
say "  Fedora:          sudo dnf install $(names_for fedora)"
say "  Arch:            sudo pacman -S --needed $(names_for arch)"
say "  Alpine:          doas apk add $(names_for alpine)"
exit 1
