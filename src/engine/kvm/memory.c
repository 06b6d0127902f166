// SPDX-License-Identifier: Apache-2.0
// Guest memory as KVM memory slots, one for each slot of core/mem.h (4.35). Invariant: a slot's number is its index in
// mem_slots(), which is fixed.
#define LOG_UNIT "kvm"
#include <errno.h>

#include "engine/kvm/kvm.h"

int kvm_memory_set_slot(struct engine *e, unsigned index, const struct mem_slot *s, bool logging) {
    struct kvm_userspace_memory_region r = {
        .slot = index,
        .flags = (s->rom ? KVM_MEM_READONLY : 0u) | (logging && !s->rom ? KVM_MEM_LOG_DIRTY_PAGES : 0u),
        .guest_phys_addr = s->gpa,
        .memory_size = s->size,
        .userspace_addr = (uint64_t)s->hva,
    };

    return kvm_ioctl(e->vm_fd, KVM_SET_USER_MEMORY_REGION, &r);
}

int kvm_memory_create(struct engine *e, struct error *err) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);

    for (unsigned i = 0; i < count; i++) {
        int r = kvm_memory_set_slot(e, i, &slots[i], false);
        if (r)
            return error_set(err, r, "kvm: map %llu MiB of '%s' at 0x%llx", (unsigned long long)(slots[i].size >> 20),
                             slots[i].name, (unsigned long long)slots[i].gpa);
    }
    return 0;
}
