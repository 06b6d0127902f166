// SPDX-License-Identifier: Apache-2.0
// Page walk: 2-level 32-bit, 3-level PAE and 4-level paging, every page size (Intel SDM vol. 3A ch. 4).
//
// Accessed and dirty bits are set with a locked compare-exchange on the entry in guest RAM; when another vCPU changed
// the entry meanwhile, the walk starts again, so an access never uses an entry that it did not mark.
#include "engine/xlate/walk.h"

#define PTE_P    1ull
#define PTE_W    2ull
#define PTE_U    4ull
#define PTE_A    0x20ull
#define PTE_D    0x40ull
#define PTE_PS   0x80ull
#define PTE_G    0x100ull
#define PTE_NX   (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

struct level {
    uint64_t *host;
    uint64_t value;
};

static inline uint64_t *pte_host(struct xcpu *x, uint64_t gpa, bool write) {
    uint8_t *page = mem_page(x->engine_mem, gpa & PAGE_MASK, write);
    return page ? (uint64_t *)(page + (gpa & ~PAGE_MASK)) : NULL;
}

// Adds bits to an entry; false when it changed since it was read.
static bool pte_mark(struct xcpu *x, uint64_t gpa, uint64_t old, uint64_t bits, bool wide) {
    uint64_t *p = pte_host(x, gpa, true);
    if (!p)
        return true; // a page table in ROM: nothing to mark
    if (wide)
        return __atomic_compare_exchange_n(p, &old, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    uint32_t old32 = (uint32_t)old;
    return __atomic_compare_exchange_n((uint32_t *)p, &old32, old32 | (uint32_t)bits, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

static inline uint32_t access_error(struct xcpu *x, unsigned flags, bool user) {
    uint32_t e = (flags & (MMU_WRITE | MMU_RMW) ? PFERR_W : 0) | (user ? PFERR_U : 0);
    if ((flags & MMU_EXEC) && (x->mmu_nxe || x->mmu_smep))
        e |= PFERR_I;
    return e;
}

// Rights of the whole walk (SDM vol. 3A 4.6).
static bool permitted(struct xcpu *x, unsigned flags, bool user, const struct walk *w) {
    if (user && !w->user)
        return false;
    if (flags & MMU_EXEC) {
        if (w->nx)
            return false;
        return !(!user && w->user && x->mmu_smep);
    }
    if (!user && w->user && x->mmu_smap && ((flags & MMU_SYSTEM) || !(x->s.rflags & RFLAGS_AC)))
        return false;
    if (flags & (MMU_WRITE | MMU_RMW))
        return w->writable || (!user && !x->mmu_wp);
    return true;
}

bool walk_load_pdptrs(struct xcpu *x, uint64_t cr3) {
    uint64_t fresh[4];
    for (unsigned i = 0; i < 4; i++) {
        uint64_t *p = pte_host(x, (cr3 & 0xffffffe0ull) + i * 8, false);
        fresh[i] = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : 0;
        if ((fresh[i] & PTE_P) && (fresh[i] & (x->phys_reserved | PTE_NX | 0x1e6ull)))
            return false;
    }
    for (unsigned i = 0; i < 4; i++)
        x->pdptr[i] = fresh[i];
    return true;
}

static uint64_t reserved_bits(struct xcpu *x, unsigned level, bool leaf) {
    uint64_t r = x->phys_reserved;
    if (!x->mmu_nxe)
        r |= PTE_NX;
    if (x->paging == PAGING_PAE)
        r |= 0x7ff0000000000000ull;
    if (leaf && level == 2)
        r |= 0x1fe000ull;
    if (leaf && level == 3)
        r |= 0x3fffe000ull;
    if (level == 4)
        r |= PTE_PS;
    return r;
}

// PAE and 4-level: 8-byte entries. Returns 0, an error, or WALK_RETRY when an entry changed under the walk.
#define WALK_RETRY 0x40000000u
static uint32_t walk_wide(struct xcpu *x, uint64_t lin, unsigned flags, bool user, bool set_ad, struct walk *w) {
    uint32_t err = access_error(x, flags, user) | WALK_FAULT;
    unsigned level = 4;
    uint64_t table = x->s.cr3 & PTE_ADDR;
    w->user = w->writable = true;
    w->nx = false;
    if (x->paging == PAGING_PAE) {
        uint64_t pdpte = x->pdptr[(lin >> 30) & 3];
        if (!(pdpte & PTE_P))
            return err;
        table = pdpte & PTE_ADDR;
        level = 2;
    }
    for (;; level--) {
        uint64_t gpa = table + ((lin >> (3 + 9 * level)) & 0x1ff) * 8;
        uint64_t *p = pte_host(x, gpa, false);
        uint64_t e = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : 0;
        if (!(e & PTE_P))
            return err;
        bool leaf = level == 1 || (level < 4 && (e & PTE_PS));
        if (level == 3 && leaf && !x->has_1g)
            return err | PFERR_P | PFERR_RSVD;
        if (e & reserved_bits(x, level, leaf && level > 1))
            return err | PFERR_P | PFERR_RSVD;
        w->user &= !!(e & PTE_U);
        w->writable &= !!(e & PTE_W);
        w->nx |= !!(e & PTE_NX);
        if (!leaf) {
            if (set_ad && !(e & PTE_A) && !pte_mark(x, gpa, e, PTE_A, true))
                return WALK_RETRY;
            table = e & PTE_ADDR;
            continue;
        }
        if (!permitted(x, flags, user, w))
            return err | PFERR_P;
        uint64_t want = PTE_A | (flags & (MMU_WRITE | MMU_RMW) ? PTE_D : 0);
        if (set_ad && (e & want) != want) {
            if (!pte_mark(x, gpa, e, want, true))
                return WALK_RETRY;
            e |= want;
        }
        uint64_t offset_mask = (1ull << (3 + 9 * level)) - 1;
        w->gpa = ((e & PTE_ADDR & ~offset_mask) | (lin & offset_mask)) & PAGE_MASK;
        w->dirty = e & PTE_D;
        w->global = (e & PTE_G) && (x->s.cr4 & CR4_PGE);
        w->large = level > 1;
        return 0;
    }
}

// 32-bit paging: 4-byte entries, 4 MiB pages with PSE (and PSE-36).
static uint32_t walk_narrow(struct xcpu *x, uint64_t lin, unsigned flags, bool user, bool set_ad, struct walk *w) {
    uint32_t err = access_error(x, flags, user) | WALK_FAULT;
    uint64_t gpa = (x->s.cr3 & 0xfffff000ull) + ((lin >> 22) & 0x3ff) * 4;
    uint64_t want_d = flags & (MMU_WRITE | MMU_RMW) ? PTE_D : 0;
    w->nx = false;
    for (unsigned level = 2;; level--) {
        uint32_t *p = (uint32_t *)pte_host(x, gpa, false);
        uint32_t e = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : 0;
        if (!(e & PTE_P))
            return err;
        bool large = level == 2 && (e & PTE_PS) && (x->s.cr4 & CR4_PSE);
        if (large && ((e >> 21) & 1))
            return err | PFERR_P | PFERR_RSVD;
        w->user = (level == 2 || w->user) && (e & PTE_U);
        w->writable = (level == 2 || w->writable) && (e & PTE_W);
        bool leaf = large || level == 1;
        uint64_t want = PTE_A | (leaf ? want_d : 0);
        if (leaf && !permitted(x, flags, user, w))
            return err | PFERR_P;
        if (set_ad && (e & want) != want) {
            if (!pte_mark(x, gpa, e, want, false))
                return WALK_RETRY;
            e |= (uint32_t)want;
        }
        if (!leaf) {
            gpa = (e & 0xfffff000u) + ((lin >> 12) & 0x3ff) * 4;
            continue;
        }
        if (large)
            w->gpa = ((e & 0xffc00000u) | ((uint64_t)(e & 0x1fe000u) << 19) | (lin & 0x3ff000u));
        else
            w->gpa = e & 0xfffff000u;
        w->dirty = e & PTE_D;
        w->global = (e & PTE_G) && (x->s.cr4 & CR4_PGE);
        w->large = large;
        return 0;
    }
}

uint32_t walk_page(struct xcpu *x, uint64_t lin, unsigned flags, bool user, bool set_ad, struct walk *w) {
    uint32_t r;
    if (x->paging == PAGING_NONE) {
        *w = (struct walk){.gpa = lin & PAGE_MASK, .user = true, .writable = true, .dirty = true};
        return 0;
    }
    do {
        if (x->paging == PAGING_32)
            r = walk_narrow(x, lin, flags, user, set_ad, w);
        else
            r = walk_wide(x, lin, flags, user, set_ad, w);
    } while (r == WALK_RETRY);
    return r;
}
