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
    unsigned long *since; // pages fetched from the dirty log since the last checkpoint; loop thread
    unsigned long *own;   // pages written before it; loop thread
    int base_fd;          // -1: no base
    uint64_t base_offset;
};

struct mem {
    unsigned nslots;
    struct mem_slot slots[MEM_MAX_SLOTS];
    struct mem_backing backing[MEM_MAX_SLOTS];
    bool checkpointed;              // loop thread
    struct mem_listener *listeners; // fixed while devices run
    int lazy_fd;                    // userfaultfd, -1: none
    bool lazy;                      // RAM is registered with it; atomic
};

#endif
