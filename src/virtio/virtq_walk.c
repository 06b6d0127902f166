// SPDX-License-Identifier: Apache-2.0
// The chain walker: follows descriptors that a hostile guest may change while we look.
//
// Invariants: each descriptor is copied once and only the copy is used; an indirect table is copied whole; a walk takes
// at most as many steps as its table has entries, so it ends; all readable segments come before all writable ones and
// their lengths add up to less than 2^32 (VIRTIO 1.2, 2.7.4.2, 2.7.5.3).
#include "virtio/virtq_walk.h"

#include <errno.h>
#include <linux/virtio_ring.h>

struct walk {
    struct virtq *vq;
    uint64_t total;
    bool writable_seen;
    const char **why;
};

static int bad(struct walk *w, const char *why) {
    *w->why = why;
    return -EINVAL;
}

// Two loads of 8 bytes, each made exactly once.
static struct vring_desc desc_load(const struct vring_desc *p) {
    union {
        uint64_t word[2];
        struct vring_desc desc;
    } u;
    u.word[0] = __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
    u.word[1] = __atomic_load_n((const uint64_t *)p + 1, __ATOMIC_RELAXED);
    return u.desc;
}

static int add_seg(struct walk *w, const struct vring_desc *d) {
    struct virtq *vq = w->vq;
    bool writable = d->flags & VRING_DESC_F_WRITE;
    if (!writable && w->writable_seen)
        return bad(w, "readable buffer after a writable one");
    w->writable_seen = writable;
    w->total += d->len;
    if (w->total > UINT32_MAX)
        return bad(w, "chain is longer than 4 GiB");
    if (d->addr + d->len < d->addr)
        return bad(w, "buffer wraps around the address space");
    if (!d->len)
        return 0; // nothing to reach
    if (vq->nsegs == VIRTQ_CHAIN_MAX)
        return bad(w, "too many descriptors in a chain");
    vq->segs[vq->nsegs++] = (struct virtq_seg){.gpa = d->addr, .len = d->len, .writable = writable};
    return 0;
}

// Takes the copy of an indirect table; returns its number of entries.
static int indirect_copy(struct walk *w, const struct vring_desc *d) {
    struct virtq *vq = w->vq;
    if (!vq->indirect_ok)
        return bad(w, "indirect descriptor without the feature");
    if (d->flags & VRING_DESC_F_NEXT)
        return bad(w, "indirect descriptor with a next one");
    if (!d->len || d->len % sizeof(struct vring_desc) || d->len / sizeof(struct vring_desc) > VIRTQ_CHAIN_MAX)
        return bad(w, "bad size of an indirect table");
    if (mem_read(vq->mem, GPA(d->addr), vq->indirect, d->len) < 0)
        return bad(w, "indirect table is not in memory");
    return (int)(d->len / sizeof(struct vring_desc));
}

static int walk_indirect(struct walk *w, const struct vring_desc *d) {
    int count = indirect_copy(w, d);
    if (count < 0)
        return count;
    unsigned i = 0;
    for (int steps = 0; steps < count; steps++) {
        const struct vring_desc *entry = &w->vq->indirect[i]; // our copy
        if (entry->flags & VRING_DESC_F_INDIRECT)
            return bad(w, "indirect table inside an indirect table");
        int ret = add_seg(w, entry);
        if (ret || !(entry->flags & VRING_DESC_F_NEXT))
            return ret;
        i = entry->next;
        if (i >= (unsigned)count)
            return bad(w, "next index out of the indirect table");
    }
    return bad(w, "loop in an indirect table");
}

int virtq_walk(struct virtq *vq, uint16_t head, const char **why) {
    struct walk w = {.vq = vq, .why = why};
    uint16_t i = head;
    vq->nsegs = 0;
    for (unsigned steps = 0; steps < vq->size; steps++) {
        if (i >= vq->size)
            return bad(&w, "descriptor index out of range");
        struct vring_desc d = desc_load(&vq->desc[i]);
        if (d.flags & VRING_DESC_F_INDIRECT)
            return walk_indirect(&w, &d);
        int ret = add_seg(&w, &d);
        if (ret || !(d.flags & VRING_DESC_F_NEXT))
            return ret;
        i = d.next;
    }
    return bad(&w, "loop in a descriptor chain");
}
