// SPDX-License-Identifier: Apache-2.0
// Layout of struct mem, shared by mem.c (set-up, mapping, copying) and mem_lookup.c (what engines call with guest
// vector state live). Slots are sorted by gpa, do not overlap, and are fixed once the vCPUs run: readers take no lock.
#ifndef CICADA_CORE_MEM_PRIVATE_H
#define CICADA_CORE_MEM_PRIVATE_H

#include "core/mem.h"

#define MEM_MAX_SLOTS 64

// What the slot of the same index needs to be taken down again.
struct mem_backing {
    void *reserve; // address range that holds hva and its guards
    size_t reserve_size;
};

struct mem {
    unsigned nslots;
    struct mem_slot slots[MEM_MAX_SLOTS];
    struct mem_backing backing[MEM_MAX_SLOTS];
    struct mem_listener *listeners; // fixed once the vCPUs run
};

#endif
