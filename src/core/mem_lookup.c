// SPDX-License-Identifier: Apache-2.0
// Look-up of guest pages on the engines' paths.
//
// An engine calls these with the guest's SSE/AVX state live in the host registers: only integer registers, no call
// into libc, no loop that a compiler turns into memset or vector code. The functions are leaves for that reason.
#include "core/mem_private.h"

#define INTEGER_ONLY __attribute__((target("general-regs-only")))

#define BITS_PER_WORD (8 * sizeof(unsigned long))

INTEGER_ONLY const struct mem_slot *mem_slots(const struct mem *mem, unsigned *count) {
    *count = mem->nslots;
    return mem->slots;
}

// Binary search without a last-hit cache: boards have under ten slots, and a shared cache line would be written
// by all vCPUs.
INTEGER_ONLY const struct mem_slot *mem_find_slot(const struct mem *mem, uint64_t gpa) {
    unsigned lo = 0, hi = mem->nslots;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct mem_slot *s = &mem->slots[mid];

        if (gpa < s->gpa)
            hi = mid;
        else if (gpa - s->gpa >= s->size)
            lo = mid + 1;
        else
            return s;
    }
    return NULL;
}

// Test before set: the word is shared by 64 pages and mostly already has the bit, and a plain load keeps its cache
// line shared between the vCPUs.
INTEGER_ONLY static void mark_page(const struct mem_slot *s, uint64_t page) {
    unsigned long *word = &s->dirty[page / BITS_PER_WORD];
    unsigned long bit = 1ul << (page % BITS_PER_WORD);

    if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
        __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
}

INTEGER_ONLY uint8_t *mem_page(struct mem *mem, uint64_t gpa, bool write) {
    const struct mem_slot *s = mem_find_slot(mem, gpa);

    if (!s)
        return NULL;
    uint64_t page = (gpa - s->gpa) >> PAGE_SHIFT;
    if (write) {
        if (s->rom)
            return NULL;
        mark_page(s, page);
    }
    return s->hva + (page << PAGE_SHIFT);
}

// Bytes outside of RAM are skipped; a range that wraps ends at the top of the address space.
INTEGER_ONLY void mem_mark_dirty(struct mem *mem, gpa_t gpa, uint64_t len) {
    if (len == 0)
        return;
    uint64_t last = gpa.v + len - 1;
    if (last < gpa.v)
        last = UINT64_MAX;
    for (unsigned i = 0; i < mem->nslots; i++) {
        const struct mem_slot *s = &mem->slots[i];
        uint64_t slot_last = s->gpa + s->size - 1;

        if (last < s->gpa || gpa.v > slot_last)
            continue;
        uint64_t from = gpa.v > s->gpa ? gpa.v - s->gpa : 0;
        uint64_t to = (last < slot_last ? last : slot_last) - s->gpa;
        for (uint64_t page = from >> PAGE_SHIFT; page <= to >> PAGE_SHIFT; page++)
            mark_page(s, page);
    }
}
