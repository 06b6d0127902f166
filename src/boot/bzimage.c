// SPDX-License-Identifier: Apache-2.0
// bzImage by the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst), 2.06 and later: the 16-bit setup code
// is skipped, the protected-mode kernel goes to its preferred address and is entered in 32-bit or 64-bit mode with
// the zero page in RSI.
#include <errno.h>
#include <string.h>

#include "boot/image.h"
#include "boot/le.h"
#include "boot/linux_params.h"

// Offsets in the file, boot.rst "The Real-Mode Kernel Header".
#define HDR_SETUP_SECTS    0x1f1
#define HDR_SYSSIZE        0x1f4
#define HDR_BOOT_FLAG      0x1fe
#define HDR_JUMP_LEN       0x201
#define HDR_MAGIC          0x202
#define HDR_VERSION        0x206
#define HDR_LOADFLAGS      0x211
#define HDR_INITRD_MAX     0x22c
#define HDR_RELOCATABLE    0x234
#define HDR_XLOADFLAGS     0x236
#define HDR_CMDLINE_SIZE   0x238
#define HDR_PAYLOAD_OFFSET 0x248
#define HDR_PAYLOAD_LENGTH 0x24c
#define HDR_PREF_ADDRESS   0x258
#define HDR_INIT_SIZE      0x260

#define LOADFLAG_LOADED_HIGH 0x01
#define XLF_KERNEL_64        0x01

#define PROTOCOL_MIN      0x0206
#define SECTOR            512
#define LOAD_ADDR_DEFAULT 0x100000 // boot.rst "Loading The Rest of The Kernel"
#define ENTRY64_OFFSET    0x200    // boot.rst "64-bit Boot Protocol"

static int bzimage_check_header(struct boot_blob f, struct error *err) {
    if (f.size < BZIMAGE_HDR_END)
        return error_set(err, -EINVAL, "the bzImage is truncated in its setup header (%zu bytes)", f.size);
    if (le16_get(f.data + HDR_BOOT_FLAG) != 0xaa55 || memcmp(f.data + HDR_MAGIC, "HdrS", 4) != 0)
        return error_set(err, -EINVAL, "not a bzImage: no Linux setup header");
    unsigned version = le16_get(f.data + HDR_VERSION);
    if (version < PROTOCOL_MIN)
        return error_set(err, -EINVAL, "its boot protocol %u.%02u is too old, 2.06 is the oldest that works",
                         version >> 8, version & 0xff);
    if (!(f.data[HDR_LOADFLAGS] & LOADFLAG_LOADED_HIGH))
        return error_set(err, -EINVAL, "it is a zImage that loads at 0x10000; a bzImage is needed");
    return 0;
}

// The protected-mode kernel follows the boot sector and setup_sects sectors; syssize counts 16-byte units and
// may round the last one up.
static int bzimage_parse_code(struct boot_blob f, struct bzimage *bz, struct error *err) {
    unsigned sects = f.data[HDR_SETUP_SECTS] ? f.data[HDR_SETUP_SECTS] : 4;
    uint64_t syssize = (uint64_t)le32_get(f.data + HDR_SYSSIZE) * 16;
    bz->code_offset = (uint64_t)(sects + 1) * SECTOR;
    if (syssize == 0)
        return error_set(err, -EINVAL, "the bzImage has no protected-mode kernel (syssize is 0)");
    if (bz->code_offset >= f.size || syssize - 15 > f.size - bz->code_offset)
        return error_set(err, -EINVAL, "the bzImage is truncated: %zu bytes of %llu", f.size,
                         (unsigned long long)(bz->code_offset + syssize));
    uint64_t rest = f.size - bz->code_offset;
    bz->code_size = syssize < rest ? syssize : rest;
    return 0;
}

// Fields that came with later versions of the protocol have defaults before them.
static void bzimage_parse_fields(struct boot_blob f, struct bzimage *bz) {
    bz->version = le16_get(f.data + HDR_VERSION);
    bz->initrd_max = le32_get(f.data + HDR_INITRD_MAX);
    bz->cmdline_max = le32_get(f.data + HDR_CMDLINE_SIZE);
    bz->load_addr = LOAD_ADDR_DEFAULT;
    bz->init_size = bz->code_size;
    if (bz->version >= 0x020a) {
        uint64_t init_size = le32_get(f.data + HDR_INIT_SIZE);
        bz->load_addr = le64_get(f.data + HDR_PREF_ADDRESS);
        bz->init_size = init_size > bz->code_size ? init_size : bz->code_size;
    }
    if (bz->version >= 0x020c)
        bz->entry64 = le16_get(f.data + HDR_XLOADFLAGS) & XLF_KERNEL_64;
}

// payload_offset counts from the protected-mode kernel (2.08).
static int bzimage_parse_payload(struct boot_blob f, struct bzimage *bz, struct error *err) {
    if (bz->version < 0x0208)
        return 0;
    uint64_t offset = le32_get(f.data + HDR_PAYLOAD_OFFSET), size = le32_get(f.data + HDR_PAYLOAD_LENGTH);
    if (offset > bz->code_size || size > bz->code_size - offset)
        return error_set(err, -EINVAL, "the payload of the bzImage (%#llx bytes at %#llx) lies outside of its code",
                         (unsigned long long)size, (unsigned long long)offset);
    bz->payload_offset = bz->code_offset + offset;
    bz->payload_size = size;
    return 0;
}

// boot.rst: the header ends at 0x202 plus the byte at 0x201.
static void bzimage_copy_header(struct boot_blob f, struct bzimage *bz) {
    size_t end = HDR_MAGIC + f.data[HDR_JUMP_LEN];
    if (end > BZIMAGE_HDR_END)
        end = BZIMAGE_HDR_END;
    memcpy(bz->header, f.data + BZIMAGE_HDR_START, end - BZIMAGE_HDR_START);
}

int bzimage_parse(struct boot_blob f, struct bzimage *bz, struct error *err) {
    memset(bz, 0, sizeof(*bz));
    int ret = bzimage_check_header(f, err);
    if (ret)
        return ret;
    ret = bzimage_parse_code(f, bz, err);
    if (ret)
        return ret;
    bzimage_parse_fields(f, bz);
    bzimage_copy_header(f, bz);
    return bzimage_parse_payload(f, bz, err);
}

static uint64_t bzimage_cmdline_max(const struct boot_image *img) {
    return img->bz.cmdline_max;
}

// Claims all that the kernel uses before it reads the memory map (init_size), writes its code.
static int bzimage_put_kernel(const struct boot_image *img, struct boot_layout *l, struct error *err) {
    const struct bzimage *bz = &img->bz;
    int ret = layout_claim(l, bz->load_addr, bz->init_size, "kernel", err);
    return ret ? ret : layout_write(l, bz->load_addr, img->kernel.data + bz->code_offset, bz->code_size, err);
}

static int bzimage32_load(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                          struct boot_entry *entry, struct error *err) {
    if (img->bz.load_addr > UINT32_MAX)
        return error_set(err, -EINVAL, "the kernel loads at %#llx, out of reach of its 32-bit entry",
                         (unsigned long long)img->bz.load_addr);
    int ret = entry_init_prot32(entry, l, img->bz.load_addr, err);
    if (ret)
        return ret;
    entry->rsi = LAYOUT_PARAMS;
    ret = bzimage_put_kernel(img, l, err);
    return ret ? ret : linux_params_put(img, l, bm, err);
}

static int bzimage64_load(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                          struct boot_entry *entry, struct error *err) {
    uint64_t rip = 0;
    // The identity map covers 4 GiB.
    if (__builtin_add_overflow(img->bz.load_addr, ENTRY64_OFFSET, &rip) || rip > UINT32_MAX)
        return error_set(err, -EINVAL, "the kernel loads at %#llx, above 4 GiB", (unsigned long long)img->bz.load_addr);
    int ret = entry_init_long64(entry, l, rip, err);
    if (ret)
        return ret;
    entry->rsi = LAYOUT_PARAMS;
    ret = bzimage_put_kernel(img, l, err);
    return ret ? ret : linux_params_put(img, l, bm, err);
}

const struct boot_protocol_ops bzimage32_ops = {bzimage_cmdline_max, 1, bzimage32_load};
const struct boot_protocol_ops bzimage64_ops = {bzimage_cmdline_max, 1, bzimage64_load};
