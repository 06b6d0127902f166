#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds test guests: build.sh OUT-FOLDER NAME... makes OUT-FOLDER/NAME.elf of tests/guest/src/NAME.c. A source that
# holds the line "// guest: 32-bit" is built for 32-bit protected mode. Both become 32-bit ELF files, which is what
# multiboot loaders take.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
mkdir -p "$out"
flags="-std=gnu17 -O1 -g -Wall -Wextra -Wno-unused-parameter -Wno-array-bounds -ffreestanding -fno-toplevel-reorder -fno-pic -fno-pie
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none
    -mgeneral-regs-only -fomit-frame-pointer -I$here"
for name in "$@"; do
    source=$here/../src/$name.c
    [ -e "$out/$name.elf" ] && [ -z "$(find "$here" "$source" -type f -newer "$out/$name.elf")" ] && continue
    width=64
    extra="$here/pagetables.c $here/smp.S"
    grep -q '^// guest: 32-bit' "$source" && width=32 && extra=
    mode="-m$width"
    [ $width = 64 ] && mode="$mode -mno-red-zone" && emulation=elf_x86_64 || emulation=elf_i386
    work=$(mktemp -d "$out/build.XXXXXX")
    objects=
    for file in "$here/boot.S" "$here/traps.S" "$here/guest.c" $extra "$source"; do
        object=$work/$(basename "$file").o
        # shellcheck disable=SC2086 # lists
        ${GUEST_CC:-gcc} $mode $flags -c "$file" -o "$object"
        objects="$objects $object"
    done
    # shellcheck disable=SC2086 # a list
    ld -m $emulation -z noexecstack --no-warn-rwx-segments -T "$here/link.ld" -o "$work/$name" $objects
    cp "$work/$name" "$out/$name.debug"
    [ $width = 32 ] || objcopy -O elf32-i386 "$work/$name"
    mv "$work/$name" "$out/$name.elf"
    rm -r "$work"
done
