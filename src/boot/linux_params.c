// SPDX-License-Identifier: Apache-2.0
// The zero page: Documentation/arch/x86/zero-page.rst for the offsets, boot.rst for the setup header in it.
// Everything that is not named stays 0: no video mode, no EDD, no EFI.
#include "boot/linux_params.h"

#include <string.h>

#include "boot/le.h"

#define ZP_ACPI_RSDP         0x070
#define ZP_EXT_RAMDISK_IMAGE 0x0c0
#define ZP_EXT_RAMDISK_SIZE  0x0c4
#define ZP_EXT_CMDLINE       0x0c8
#define ZP_E820_ENTRIES      0x1e8
#define ZP_ALT_MEM_K         0x1e0
#define ZP_VID_MODE          0x1fa
#define ZP_BOOT_FLAG         0x1fe
#define ZP_MAGIC             0x202
#define ZP_VERSION           0x206
#define ZP_TYPE_OF_LOADER    0x210
#define ZP_LOADFLAGS         0x211
#define ZP_RAMDISK_IMAGE     0x218
#define ZP_RAMDISK_SIZE      0x21c
#define ZP_CMDLINE           0x228
#define ZP_INITRD_MAX        0x22c
#define ZP_KERNEL_ALIGNMENT  0x230
#define ZP_CMDLINE_SIZE      0x238
#define ZP_E820_TABLE        0x2d0

#define E820_ENTRY_SIZE        20
#define LOADER_UNDEFINED       0xff
#define VID_MODE_NORMAL        0xffff
#define LOADFLAG_LOADED_HIGH   0x01
#define LOADFLAG_QUIET         0x20
#define LOADFLAG_KEEP_SEGMENTS 0x40

_Static_assert(ZP_E820_TABLE + BOOT_E820_MAX * E820_ENTRY_SIZE <= LAYOUT_PARAMS_SIZE, "E820 table fits");

// A vmlinux has no setup header: the least that Linux looks at.
static void params_default_header(uint8_t *zp) {
    le16_put(zp + ZP_BOOT_FLAG, 0xaa55);
    memcpy(zp + ZP_MAGIC, "HdrS", 4);
    le16_put(zp + ZP_VERSION, 0x020c);
    zp[ZP_LOADFLAGS] = LOADFLAG_LOADED_HIGH;
    le32_put(zp + ZP_INITRD_MAX, BOOT_LINUX_INITRD_MAX);
    le32_put(zp + ZP_KERNEL_ALIGNMENT, 0x1000000);
    le32_put(zp + ZP_CMDLINE_SIZE, BOOT_LINUX_CMDLINE_MAX);
}

static void params_set_header(uint8_t *zp, const struct boot_image *img) {
    if (img->has_bz)
        memcpy(zp + BZIMAGE_HDR_START, img->bz.header, sizeof(img->bz.header));
    else
        params_default_header(zp);
    zp[ZP_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    zp[ZP_LOADFLAGS] &= (uint8_t) ~(LOADFLAG_QUIET | LOADFLAG_KEEP_SEGMENTS);
    le16_put(zp + ZP_VID_MODE, VID_MODE_NORMAL);
    le32_put(zp + ZP_CMDLINE, LAYOUT_CMDLINE);
    le32_put(zp + ZP_EXT_CMDLINE, 0);
}

static void params_set_memory(uint8_t *zp, const struct boot_machine *bm) {
    uint64_t high_kib = bm->ram_low > 0x100000 ? (bm->ram_low - 0x100000) / 1024 : 0;
    le32_put(zp + ZP_ALT_MEM_K, (uint32_t)high_kib);
    le64_put(zp + ZP_ACPI_RSDP, bm->rsdp);
    zp[ZP_E820_ENTRIES] = (uint8_t)bm->e820_count;
    for (unsigned i = 0; i < bm->e820_count; i++) {
        uint8_t *e = zp + ZP_E820_TABLE + i * E820_ENTRY_SIZE;
        le64_put(e, bm->e820[i].base);
        le64_put(e + 8, bm->e820[i].size);
        le32_put(e + 16, bm->e820[i].type);
    }
}

static int params_put_initrd(uint8_t *zp, const struct boot_image *img, struct boot_layout *l, struct error *err) {
    uint64_t gpa = 0, size, max = img->has_bz ? img->bz.initrd_max : BOOT_LINUX_INITRD_MAX;
    if (img->module_count == 0)
        return 0;
    size = img->modules[0].blob.size;
    int ret = layout_put_high(l, max, img->modules[0].blob.data, size, "initrd", &gpa, err);
    if (ret)
        return error_prefix(err, "initrd '%s'", img->modules[0].name);
    le32_put(zp + ZP_RAMDISK_IMAGE, (uint32_t)gpa);
    le32_put(zp + ZP_EXT_RAMDISK_IMAGE, (uint32_t)(gpa >> 32));
    le32_put(zp + ZP_RAMDISK_SIZE, (uint32_t)size);
    le32_put(zp + ZP_EXT_RAMDISK_SIZE, (uint32_t)(size >> 32));
    return 0;
}

int linux_params_put(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                     struct error *err) {
    uint8_t zp[LAYOUT_PARAMS_SIZE] = {0};
    params_set_header(zp, img);
    params_set_memory(zp, bm);
    // Low memory first, so that the initrd is placed around it and around the kernel.
    int ret = layout_claim(l, LAYOUT_PARAMS, sizeof(zp), "boot parameters", err);
    if (!ret)
        ret = layout_put_cmdline(l, img->cmdline, err);
    if (!ret)
        ret = params_put_initrd(zp, img, l, err);
    return ret ? ret : layout_write(l, LAYOUT_PARAMS, zp, sizeof(zp), err);
}
