// SPDX-License-Identifier: Apache-2.0
// vmlinux by the 64-bit Linux boot protocol: its ELF entry is startup_64, which takes the zero page in RSI like the
// 64-bit entry of a bzImage (boot.rst "64-bit Boot Protocol").
#include <errno.h>

#include "boot/image.h"
#include "boot/linux_params.h"

static uint64_t elf_linux_cmdline_max(const struct boot_image *img) {
    return img->has_bz ? img->bz.cmdline_max : BOOT_LINUX_CMDLINE_MAX;
}

static int elf_linux_load(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                          struct boot_entry *entry, struct error *err) {
    if (!elf_contains(&img->elf, img->elf.entry) || img->elf.entry > UINT32_MAX)
        return error_set(err, -EINVAL, "the entry point %#llx of the kernel lies outside of its segments",
                         (unsigned long long)img->elf.entry);
    int ret = entry_init_long64(entry, l, img->elf.entry, err);
    if (ret)
        return ret;
    entry->rsi = LAYOUT_PARAMS;
    ret = elf_load(&img->elf, img->kernel, l, err);
    return ret ? ret : linux_params_put(img, l, bm, err);
}

const struct boot_protocol_ops elf_linux_ops = {elf_linux_cmdline_max, 1, elf_linux_load};
