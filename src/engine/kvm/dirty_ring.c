// SPDX-License-Identifier: Apache-2.0
// The dirty log as a ring for each vCPU (8.29 KVM_CAP_DIRTY_LOG_RING): KVM appends every page that is written for the
// first time, so a fetch costs what was written and not the size of memory.
//
// Invariants: a ring is read by its vCPU's thread, or with the vCPUs stopped. A page is marked in core/mem.h before its
// entry goes back to KVM, which protects the page again.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <sys/mman.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define ENTRIES 4096u // 16 MiB of pages; KVM wants a few hundred more than a processor logs by itself

static uint32_t ring_bytes(void) {
    return ENTRIES * sizeof(struct kvm_dirty_gfn);
}

int kvm_ring_enable(struct engine *e) {
    static const long caps[] = {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING};

    for (unsigned i = 0; i < ARRAY_LEN(caps); i++) {
        struct kvm_enable_cap cap = {.cap = (uint32_t)caps[i], .args = {ring_bytes()}};
        if (kvm_has(e->vm_fd, caps[i]) >= (int)ring_bytes())
            return kvm_ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap);
    }
    return -EOPNOTSUPP;
}

int kvm_ring_map(struct kvm_vcpu *v, struct error *err) {
    off_t offset = (off_t)(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE);
    void *ring = mmap(NULL, ring_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, offset);

    if (ring == MAP_FAILED)
        return error_set(err, -errno, "kvm: map the dirty ring of vCPU %u", v->index);
    v->ring = ring;
    return 0;
}

void kvm_ring_unmap(struct kvm_vcpu *v) {
    if (v->ring)
        munmap(v->ring, ring_bytes());
}

// An entry of another address space (SMM) or slot cannot be; hostile or not, it is passed over.
static void mark(struct engine *e, const struct kvm_dirty_gfn *g) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);

    if (g->slot < count && g->offset < slots[g->slot].size >> PAGE_SHIFT)
        mem_mark_dirty(e->host->mem, GPA(slots[g->slot].gpa + (g->offset << PAGE_SHIFT)), PAGE_SIZE);
}

// Returns how many entries there were.
static unsigned read_ring(struct kvm_vcpu *v) {
    unsigned n = 0;

    for (; n < ENTRIES; n++, v->ring_next++) {
        struct kvm_dirty_gfn *g = &v->ring[v->ring_next % ENTRIES];
        if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            break;
        mark(v->engine, g);
        __atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    }
    if (n == ENTRIES) // KVM stops before; what it has written over is not known
        kvm_dirty_all(v->engine);
    return n;
}

static void give_back(struct engine *e) {
    int r = kvm_ioctl(e->vm_fd, KVM_RESET_DIRTY_RINGS, NULL);

    if (r < 0)
        log_error("dirty rings: error %d", r);
}

bool kvm_ring_full(struct kvm_vcpu *v) {
    bool any = read_ring(v) > 0;

    give_back(v->engine);
    return any;
}

void kvm_ring_sync(struct engine *e) {
    for (unsigned i = 0; i < e->host->vcpus; i++)
        if (e->vcpus[i])
            (void)read_ring(e->vcpus[i]);
    give_back(e);
}
