// SPDX-License-Identifier: Apache-2.0
// CPU state at the entry of a kernel: flat segments with the selectors that the Linux boot protocol asks for
// (__BOOT_CS 0x10, __BOOT_DS 0x18; the other protocols take any), a 32-bit TSS for PVH, and for 64-bit entries
// page tables that map the first 4 GiB one to one (SDM 3A 4.5).
#include "boot/layout.h"

#include <string.h>

#include "boot/le.h"

#define SEL_CODE  0x10
#define SEL_DATA  0x18
#define SEL_TSS   0x20
#define GDT_BYTES 0x30 // null, unused, code, data, TSS (16 bytes in long mode)

// Access rights as in VMX, SDM 3C 25.4.1: type, S, DPL, P in bits 7:0; AVL, L, D/B, G in bits 15:12.
#define ATTR_CODE32   0xc09b
#define ATTR_CODE64   0xa09b
#define ATTR_DATA     0xc093
#define ATTR_TSS_BUSY 0x008b

#define PTE_PRESENT_WRITE 0x3
#define PTE_LARGE         0x80

// SDM 3A 3.4.5. Limits with the G bit count 4 KiB units.
static uint64_t entry_descriptor(const struct boot_segment *s) {
    uint64_t limit = (s->attr & 0x8000) ? s->limit >> 12 : s->limit;
    uint64_t base = s->base;
    return (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)(s->attr & 0xff) << 40 | (limit >> 16 & 0xf) << 48 |
           (uint64_t)(s->attr >> 12) << 52 | (base >> 24 & 0xff) << 56;
}

static int entry_put_gdt(struct boot_entry *e, struct boot_layout *l, struct error *err) {
    uint8_t gdt[GDT_BYTES] = {0};
    le64_put(gdt + SEL_CODE, entry_descriptor(&e->cs));
    le64_put(gdt + SEL_DATA, entry_descriptor(&e->ds));
    le64_put(gdt + SEL_TSS, entry_descriptor(&e->tr));
    e->gdt_base = LAYOUT_GDT;
    e->gdt_limit = sizeof(gdt) - 1;
    return layout_put(l, LAYOUT_GDT, gdt, sizeof(gdt), "GDT", err);
}

static int entry_init(struct boot_entry *e, struct boot_layout *l, enum boot_mode mode, uint64_t rip,
                      struct error *err) {
    memset(e, 0, sizeof(*e));
    e->mode = mode;
    e->rip = rip;
    e->rsp = LAYOUT_STACK_TOP;
    e->cs = (struct boot_segment){SEL_CODE, mode == BOOT_LONG64 ? ATTR_CODE64 : ATTR_CODE32, UINT32_MAX, 0};
    e->ds = (struct boot_segment){SEL_DATA, ATTR_DATA, UINT32_MAX, 0};
    e->tr = (struct boot_segment){SEL_TSS, ATTR_TSS_BUSY, 0x67, 0};
    return entry_put_gdt(e, l, err);
}

int entry_init_prot32(struct boot_entry *e, struct boot_layout *l, uint64_t rip, struct error *err) {
    return entry_init(e, l, BOOT_PROT32_FLAT, rip, err);
}

int entry_init_long64(struct boot_entry *e, struct boot_layout *l, uint64_t rip, struct error *err) {
    uint8_t tables[6 * 4096] = {0};
    uint8_t *pml4 = tables, *pdpt = tables + 0x1000, *pd = tables + 0x2000;

    le64_put(pml4, (LAYOUT_PAGE_TABLES + 0x1000) | PTE_PRESENT_WRITE);
    for (uint64_t i = 0; i < 4; i++)
        le64_put(pdpt + i * 8, (LAYOUT_PAGE_TABLES + 0x2000 + i * 0x1000) | PTE_PRESENT_WRITE);
    for (uint64_t i = 0; i < 4 * 512; i++)
        le64_put(pd + i * 8, i << 21 | PTE_LARGE | PTE_PRESENT_WRITE);
    int ret = layout_put(l, LAYOUT_PAGE_TABLES, tables, sizeof(tables), "page tables", err);
    if (ret)
        return ret;
    ret = entry_init(e, l, BOOT_LONG64, rip, err);
    e->cr3 = LAYOUT_PAGE_TABLES;
    return ret;
}
