// SPDX-License-Identifier: Apache-2.0
// The memory map that every boot protocol hands to the guest. Sorted, without overlap; adjacent RAM entries do not
// occur, so each loadable range lies inside one entry.
#include <string.h>

#include "boot/boot.h"

#define LOW_RAM_END 0x9fc00ull // the last KiB below 640 KiB is where a BIOS keeps its data area
#define HIGH_START  0x100000ull

static void machine_add(struct boot_machine *bm, uint64_t base, uint64_t end, enum boot_e820_type type) {
    if (end > base)
        bm->e820[bm->e820_count++] = (struct boot_e820){base, end - base, type};
}

void boot_machine_init(struct boot_machine *bm, uint64_t ram_bytes, uint64_t ecam_base, uint64_t ecam_size,
                       unsigned cpus, uint64_t rsdp) {
    memset(bm, 0, sizeof(*bm));
    bm->ram_low = ram_bytes < BOOT_RAM_LOW_MAX ? ram_bytes : BOOT_RAM_LOW_MAX;
    bm->ram_high = ram_bytes - bm->ram_low;
    bm->cpus = cpus;
    bm->rsdp = rsdp;
    machine_add(bm, 0, bm->ram_low < LOW_RAM_END ? bm->ram_low : LOW_RAM_END, E820_RAM);
    machine_add(bm, LOW_RAM_END, HIGH_START, E820_RESERVED);
    machine_add(bm, HIGH_START, bm->ram_low, E820_RAM);
    machine_add(bm, ecam_base, ecam_base + ecam_size, E820_RESERVED);
    machine_add(bm, BOOT_RAM_HIGH_BASE, BOOT_RAM_HIGH_BASE + bm->ram_high, E820_RAM);
}
