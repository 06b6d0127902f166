#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kernel files that cannot be booted: exit code 1 and a message that names the file.
. "$(dirname "$0")/../lib.sh"
images kernel plain

refused --kernel
refused "$T/missing" --kernel "$T/missing"
refused "$T" --kernel "$T"

: >"$T/empty"
refused "$T/empty" --kernel "$T/empty"
head -c 100 "$KERNEL" >"$T/short"
refused "$T/short" --kernel "$T/short"
head -c 600 "$KERNEL" >"$T/header-only"
refused "$T/header-only" --kernel "$T/header-only"
head -c 1000000 "$KERNEL" >"$T/truncated"
refused "$T/truncated" --kernel "$T/truncated"
head -c 100000 /dev/zero >"$T/zeros"
refused "$T/zeros" --kernel "$T/zeros"
head -c 100000 /dev/urandom >"$T/noise"
refused "$T/noise" --kernel "$T/noise"
echo 'not a kernel' >"$T/text"
refused "$T/text" --kernel "$T/text"
mkfifo "$T/pipe"
refused "$T/pipe" --kernel "$T/pipe"

# ELF headers of other architectures: 64-bit AArch64 (machine 183), 32-bit ARM (40), 64-bit big-endian PowerPC (21).
elf() { # CLASS DATA MACHINE FILE
    { printf '\177ELF'; printf "\\$1\\$2\\001"; head -c 9 /dev/zero; printf "\\002\\000$3"; head -c 4096 /dev/zero; } >"$4"
}
elf 002 001 '\267\000' "$T/aarch64"
refused "$T/aarch64" --kernel "$T/aarch64"
elf 001 001 '\050\000' "$T/arm"
refused "$T/arm" --kernel "$T/arm"
{ printf '\177ELF\002\002\001'; head -c 9 /dev/zero; printf '\000\002\000\025'; head -c 4096 /dev/zero; } >"$T/ppc64"
refused "$T/ppc64" --kernel "$T/ppc64"
# A Linux arm64 Image: "ARM\x64" at offset 56.
{ head -c 56 /dev/zero; printf 'ARM\144'; head -c 8192 /dev/zero; } >"$T/arm64-image"
refused "$T/arm64-image" --kernel "$T/arm64-image"
elf 002 001 '\076\000' "$T/no-segments"
refused "$T/no-segments" --kernel "$T/no-segments"

# The initrd.
refused "$T/missing" --kernel "$KERNEL" --initrd "$T/missing"
refused "$T" --kernel "$KERNEL" --initrd "$T"
truncate -s 1G "$T/huge"
refused "$T/huge" --kernel "$KERNEL" --initrd "$T/huge" --memory 128M

# The command line: Linux says how long it may be (cmdline_size 2047).
refused "command line|cmdline" --kernel "$KERNEL" --cmdline "$(head -c 5000 /dev/zero | tr '\0' a)"
refused "command line|cmdline" --kernel "$KERNEL" --cmdline "$(head -c 100000 /dev/zero | tr '\0' a)"
# A kernel larger than the memory.
refused "memory" --kernel "$KERNEL" --memory 4M
all_refused
