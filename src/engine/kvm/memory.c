// SPDX-License-Identifier: Apache-2.0
// Guest memory as KVM memory slots, one for each slot of core/mem.h, and the dirty log (4.35, 4.8).
//
// Invariant: a slot's number is its index in mem_slots(), which is fixed. Logging costs the guest large pages, so it
// starts with the first dirty_sync, which reports every page: until then nothing was recorded.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

static int set_slot(struct engine *e, unsigned index, const struct mem_slot *s, bool logging) {
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
        int r = set_slot(e, i, &slots[i], false);
        if (r)
            return error_set(err, r, "kvm: map %llu MiB of '%s' at 0x%llx", (unsigned long long)(slots[i].size >> 20),
                             slots[i].name, (unsigned long long)slots[i].gpa);
    }
    return 0;
}

// Everything counts as dirty: nothing was recorded so far, or the record could not be read.
static void mark_all(struct engine *e, const struct mem_slot *s) {
    if (!s->rom)
        mem_mark_dirty(e->host->mem, GPA(s->gpa), s->size);
}

static void mark_word(struct engine *e, const struct mem_slot *s, uint64_t first_page, unsigned long word) {
    for (; word; word &= word - 1) {
        uint64_t page = first_page + (unsigned)__builtin_ctzl(word);
        mem_mark_dirty(e->host->mem, GPA(s->gpa + (page << PAGE_SHIFT)), PAGE_SIZE);
    }
}

static int fetch_slot(struct engine *e, unsigned index, const struct mem_slot *s) {
    uint64_t words = ((s->size >> PAGE_SHIFT) + 63) / 64;
    unsigned long *bits = calloc(words, sizeof(*bits));
    struct kvm_dirty_log log = {.slot = index, .dirty_bitmap = bits};
    int r = bits ? kvm_ioctl(e->vm_fd, KVM_GET_DIRTY_LOG, &log) : -ENOMEM;

    for (uint64_t i = 0; r == 0 && i < words; i++)
        mark_word(e, s, i * 64, bits[i]);
    free(bits);
    return r;
}

void kvm_memory_dirty_sync(struct engine *e) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);
    bool started = true;

    for (unsigned i = 0; i < count; i++) {
        int r;
        if (slots[i].rom)
            continue;
        r = e->dirty_logging ? fetch_slot(e, i, &slots[i]) : set_slot(e, i, &slots[i], true);
        if (r || !e->dirty_logging)
            mark_all(e, &slots[i]);
        if (r)
            log_warn("dirty log of '%s': error %d, all of it counts as written", slots[i].name, r);
        started &= r == 0;
    }
    e->dirty_logging |= started;
}
