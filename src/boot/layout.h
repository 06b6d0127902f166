// SPDX-License-Identifier: Apache-2.0
// What a boot protocol puts where in guest memory. Every range is claimed before it is written: it must lie in RAM
// of the memory map and must not overlap another claim, so no loader needs overlap checks of its own.
#ifndef CICADA_BOOT_LAYOUT_H
#define CICADA_BOOT_LAYOUT_H

#include "boot/boot.h"

// Low memory, docs/memory-map.md.
#define LAYOUT_GDT          0x500
#define LAYOUT_INFO         0x6000 // PVH start info, multiboot info: with their module lists and names
#define LAYOUT_INFO_SIZE    0x1000
#define LAYOUT_PARAMS       0x7000 // Linux zero page; memory map of PVH and multiboot
#define LAYOUT_PARAMS_SIZE  0x1000
#define LAYOUT_STACK_TOP    0x8ff0
#define LAYOUT_PAGE_TABLES  0x9000 // PML4, PDPT, 4 page directories
#define LAYOUT_CMDLINE      0x20000
#define LAYOUT_CMDLINE_SIZE 0x10000

#define LAYOUT_CLAIMS_MAX 64

struct layout_claim {
    uint64_t start, end;
    const char *what; // static string
};

struct boot_layout {
    struct mem *mem; // NULL: dry run
    const struct boot_machine *machine;
    unsigned count;
    struct layout_claim claims[LAYOUT_CLAIMS_MAX];
};

void layout_init(struct boot_layout *l, struct mem *mem, const struct boot_machine *machine);
// -EINVAL when [gpa, gpa+size) is not RAM or is taken.
int layout_claim(struct boot_layout *l, uint64_t gpa, uint64_t size, const char *what, struct error *err);
// Writes to a range already claimed.
int layout_write(struct boot_layout *l, uint64_t gpa, const void *data, uint64_t size, struct error *err);
// Bytes [offset, offset + size) of a file, which lie in it (struct boot_blob in image.h).
struct boot_blob;
int layout_write_blob(struct boot_layout *l, uint64_t gpa, struct boot_blob blob, uint64_t offset, uint64_t size,
                      struct error *err);
int layout_zero(struct boot_layout *l, uint64_t gpa, uint64_t size, struct error *err);
// Claim and write.
int layout_put(struct boot_layout *l, uint64_t gpa, const void *data, uint64_t size, const char *what,
               struct error *err);
// Page-aligned place for size bytes in the low RAM, as high as possible with the last byte at or below `max`;
// not below the first MiB. Claims and writes it.
int layout_put_high(struct boot_layout *l, uint64_t max, const void *data, uint64_t size, const char *what,
                    uint64_t *gpa, struct error *err);
// The command line with its NUL at LAYOUT_CMDLINE.
int layout_put_cmdline(struct boot_layout *l, const char *cmdline, struct error *err);

// ---- entry.c: initial CPU state; writes the GDT (and the page tables) through the layout ----
int entry_init_prot32(struct boot_entry *e, struct boot_layout *l, uint64_t rip, struct error *err);
int entry_init_long64(struct boot_entry *e, struct boot_layout *l, uint64_t rip, struct error *err);

#endif
