// SPDX-License-Identifier: Apache-2.0
// Tells what a kernel file is by its magic numbers, and for what cannot be booted says what it is instead.
#include <errno.h>
#include <string.h>

#include "boot/image.h"

#define BZIMAGE_MAGIC_OFFSET     0x202
#define BOOT_SECTOR_MAGIC_OFFSET 0x1fe

static bool blob_has(struct boot_blob file, size_t offset, const char *magic, size_t len) {
    return file.size >= offset + len && memcmp(file.data + offset, magic, len) == 0;
}

// Looked through in this order: headers with a wide magic first, the two bytes of a boot sector last.
static const struct {
    size_t offset;
    const char *magic;
    size_t len;
    const char *what;
} detect_others[] = {
    {0x38, "ARM\x64", 4, "is a Linux kernel for aarch64; this machine is x86-64"},
    {0x38, "RSC\x05", 4, "is a Linux kernel for riscv64; this machine is x86-64"},
    {0x24, "\x18\x28\x6f\x01", 4, "is a Linux kernel for 32-bit ARM; this machine is x86-64"},
    {0, "\x27\x05\x19\x56", 4, "is a U-Boot image; an x86-64 bzImage or ELF kernel is needed"},
    {0, "\x1f\x8b", 2, "is a bare gzip file; a bzImage or an unpacked ELF kernel is needed"},
    {0,
     "\xfd"
     "7zXZ",
     6, "is a bare xz file; a bzImage or an unpacked ELF kernel is needed"},
    {0, "\x28\xb5\x2f\xfd", 4, "is a bare zstd file; a bzImage or an unpacked ELF kernel is needed"},
    {0, "\x02\x21\x4c\x18", 4, "is a bare lz4 file; a bzImage or an unpacked ELF kernel is needed"},
    {0, "070701", 6, "is a cpio archive: an initrd, not a kernel"},
    {0, "QFI\xfb", 4, "is a qcow2 disk image, not a kernel"},
    {0, "!<arch>\n", 8, "is an archive (.deb or .a), not a kernel"},
    {0, "#!", 2, "is a script, not a kernel"},
    {BOOT_SECTOR_MAGIC_OFFSET, "\x55\xaa", 2, "is a boot sector or disk image, not a kernel"},
    {0, "MZ", 2, "is a PE program or a truncated bzImage: it has no Linux setup header"},
};

int boot_detect(struct boot_blob file, enum boot_format *format, struct error *err) {
    size_t offset;
    if (file.size == 0)
        return error_set(err, -EINVAL, "the file is empty");
    if (blob_has(file, 0,
                 "\x7f"
                 "ELF",
                 4)) {
        *format = FORMAT_ELF;
        return 0;
    }
    if (blob_has(file, BZIMAGE_MAGIC_OFFSET, "HdrS", 4)) {
        *format = FORMAT_BZIMAGE;
        return 0;
    }
    if (multiboot_find(file, &offset)) {
        *format = FORMAT_MULTIBOOT;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(detect_others); i++) {
        if (blob_has(file, detect_others[i].offset, detect_others[i].magic, detect_others[i].len))
            return error_set(err, -EINVAL, "%s", detect_others[i].what);
    }
    return error_set(err, -EINVAL, "not a kernel: no bzImage, ELF or multiboot header in %zu bytes", file.size);
}
