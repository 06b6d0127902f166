// SPDX-License-Identifier: Apache-2.0
// Xen PVH direct boot: docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h (version 1).
// 32-bit protected mode, flat, paging off; EBX = hvm_start_info.
#include <errno.h>
#include <string.h>

#include "boot/image.h"
#include "boot/le.h"

// struct hvm_start_info
#define SI_MAGIC          0
#define SI_VERSION        4
#define SI_NR_MODULES     12
#define SI_MODLIST        16
#define SI_CMDLINE        24
#define SI_RSDP           32
#define SI_MEMMAP         40
#define SI_MEMMAP_ENTRIES 48
#define SI_SIZE           56
#define START_INFO_MAGIC  0x336ec578u

#define MODLIST_OFFSET 0x40 // in LAYOUT_INFO
#define MODLIST_ENTRY  32   // struct hvm_modlist_entry: paddr, size, cmdline_paddr, reserved
#define MEMMAP_ENTRY   24   // struct hvm_memmap_table_entry: addr, size, type, reserved

_Static_assert(MODLIST_OFFSET + BOOT_MODULES_MAX * MODLIST_ENTRY <= LAYOUT_INFO_SIZE, "module list fits");
_Static_assert(BOOT_E820_MAX *MEMMAP_ENTRY <= LAYOUT_PARAMS_SIZE, "memory map fits");

// Linux takes COMMAND_LINE_SIZE bytes and cuts the rest silently.
static uint64_t pvh_cmdline_max(const struct boot_image *img) {
    if (img->has_bz)
        return img->bz.cmdline_max;
    return img->elf.linux_kernel ? BOOT_LINUX_CMDLINE_MAX : LAYOUT_CMDLINE_SIZE - 1;
}

static int pvh_put_modules(uint8_t *info, const struct boot_image *img, struct boot_layout *l, struct error *err) {
    for (unsigned i = 0; i < img->module_count; i++) {
        const struct boot_module *m = &img->modules[i];
        uint8_t *e = info + MODLIST_OFFSET + i * MODLIST_ENTRY;
        uint64_t gpa = 0;
        int ret = layout_put_high(l, BOOT_LINUX_INITRD_MAX, m->blob.data, m->blob.size, "initrd", &gpa, err);
        if (ret)
            return error_prefix(err, "initrd '%s'", m->name);
        le64_put(e, gpa);
        le64_put(e + 8, m->blob.size);
    }
    return 0;
}

static void pvh_fill_memmap(uint8_t *table, const struct boot_machine *bm) {
    for (unsigned i = 0; i < bm->e820_count; i++, table += MEMMAP_ENTRY) {
        le64_put(table, bm->e820[i].base);
        le64_put(table + 8, bm->e820[i].size);
        le32_put(table + 16, bm->e820[i].type); // XEN_HVM_MEMMAP_TYPE_* are the numbers of E820
    }
}

static void pvh_fill_start_info(uint8_t *info, const struct boot_image *img, const struct boot_machine *bm) {
    le32_put(info + SI_MAGIC, START_INFO_MAGIC);
    le32_put(info + SI_VERSION, 1);
    le32_put(info + SI_NR_MODULES, img->module_count);
    le64_put(info + SI_MODLIST, img->module_count ? LAYOUT_INFO + MODLIST_OFFSET : 0);
    le64_put(info + SI_CMDLINE, LAYOUT_CMDLINE);
    le64_put(info + SI_RSDP, bm->rsdp);
    le64_put(info + SI_MEMMAP, LAYOUT_PARAMS);
    le32_put(info + SI_MEMMAP_ENTRIES, bm->e820_count);
}

static int pvh_put_info(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                        struct error *err) {
    uint8_t info[LAYOUT_INFO_SIZE] = {0}, memmap[LAYOUT_PARAMS_SIZE] = {0};
    _Static_assert(SI_SIZE <= MODLIST_OFFSET, "start info fits");
    int ret = layout_claim(l, LAYOUT_INFO, sizeof(info), "PVH start info", err);
    if (!ret)
        ret = layout_put_cmdline(l, img->cmdline, err);
    pvh_fill_memmap(memmap, bm);
    if (!ret)
        ret = layout_put(l, LAYOUT_PARAMS, memmap, sizeof(memmap), "PVH memory map", err);
    if (!ret)
        ret = pvh_put_modules(info, img, l, err);
    pvh_fill_start_info(info, img, bm);
    return ret ? ret : layout_write(l, LAYOUT_INFO, info, sizeof(info), err);
}

static int pvh_load(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                    struct boot_entry *entry, struct error *err) {
    if (!elf_contains(&img->elf, img->elf.pvh_entry) || img->elf.pvh_entry > UINT32_MAX)
        return error_set(err, -EINVAL, "the PVH entry point %#llx of the kernel lies outside of its segments",
                         (unsigned long long)img->elf.pvh_entry);
    int ret = entry_init_prot32(entry, l, img->elf.pvh_entry, err);
    if (ret)
        return ret;
    entry->rbx = LAYOUT_INFO;
    ret = elf_load(&img->elf, img->kernel, l, err);
    return ret ? ret : pvh_put_info(img, l, bm, err);
}

const struct boot_protocol_ops elf_pvh_ops = {pvh_cmdline_max, BOOT_MODULES_MAX, pvh_load};
