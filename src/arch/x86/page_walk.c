// SPDX-License-Identifier: Apache-2.0
// Page walk for debuggers; see the header. The three forms of paging differ only in the size of an entry, in the level
// that they begin at, and in what a large page looks like.
#include "arch/x86/page_walk.h"

#include <errno.h>

#define PTE_P    1ull
#define PTE_PS   0x80ull
#define PTE_ADDR 0x000ffffffffff000ull

struct paging {
    uint64_t root;
    unsigned levels;    // of tables
    unsigned entry;     // bytes
    unsigned bits;      // of the address that a table is indexed by
    unsigned top_bits;  // the same of the first table
    unsigned max_large; // highest level whose entry may be a page, level 1 being the last
};

static struct paging paging_of(const struct cpu_state *s) {
    if (s->efer & EFER_LMA)
        return (struct paging){.root = s->cr3 & PTE_ADDR, .levels = 4, .entry = 8, .bits = 9, .top_bits = 9, 3};
    if (s->cr4 & CR4_PAE)
        return (struct paging){.root = s->cr3 & 0xffffffe0u, .levels = 3, .entry = 8, .bits = 9, .top_bits = 2, 2};
    return (struct paging){.root = s->cr3 & 0xfffff000u,
                           .levels = 2,
                           .entry = 4,
                           .bits = 10,
                           .top_bits = 10,
                           .max_large = s->cr4 & CR4_PSE ? 2 : 1};
}

static int read_entry(struct mem *mem, uint64_t table, uint64_t index, unsigned size, uint64_t *entry) {
    *entry = 0;
    return mem_read(mem, GPA(table + index * size), entry, size) == 0 && (*entry & PTE_P) ? 0 : -EFAULT;
}

// The page that a leaf maps; the low bits of a large page's address may hold flags.
static uint64_t leaf_address(const struct paging *p, uint64_t entry, uint64_t offset_mask) {
    if (p->entry == 4 && offset_mask > 0xfff) // PSE-36: bits 32 to 39 lie in bits 13 to 20
        return (entry & 0xffc00000u) | (entry & 0x1fe000u) << 19;
    return entry & PTE_ADDR & ~offset_mask;
}

static int walk(const struct paging *p, struct mem *mem, uint64_t lin, uint64_t *gpa) {
    uint64_t table = p->root, entry;

    for (unsigned level = p->levels;; level--) {
        unsigned shift = 12 + p->bits * (level - 1), width = level == p->levels ? p->top_bits : p->bits;
        uint64_t offset_mask = (1ull << shift) - 1;
        int ret = read_entry(mem, table, lin >> shift & ((1ull << width) - 1), p->entry, &entry);

        if (ret)
            return ret;
        if (level == 1 || (level <= p->max_large && (entry & PTE_PS))) {
            *gpa = leaf_address(p, entry, offset_mask) | (lin & offset_mask);
            return 0;
        }
        table = entry & PTE_ADDR;
    }
}

int x86_page_walk(const struct cpu_state *s, struct mem *mem, gva_t lin, gpa_t *gpa) {
    bool long_mode = s->efer & EFER_LMA;
    uint64_t a = long_mode ? lin.v : (uint32_t)lin.v;
    struct paging p = paging_of(s);

    if (!(s->cr0 & CR0_PG)) {
        *gpa = GPA(a);
        return 0;
    }
    if (long_mode && (uint64_t)((int64_t)(a << 16) >> 16) != a)
        return -EFAULT;
    return walk(&p, mem, a, &gpa->v);
}
