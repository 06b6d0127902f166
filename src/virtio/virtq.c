// SPDX-License-Identifier: Apache-2.0
// Split virtqueues: taking and returning chains. The walker is in virtq_walk.c.
//
// Invariants: ready implies that the three ring areas are mapped whole and aligned; inflight <= size, so what a guest
// can make us allocate is bounded by the queue; used entries are written, their pages marked dirty, and only then
// the index is published.
#include "virtio/virtq.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/virtq_walk.h"

#define BIT_OF(feature) (UINT64_C(1) << (feature))

// Layout of the rings in 16-bit units (VIRTIO 1.2, 2.7.6 and 2.7.8).
#define AVAIL_FLAGS 0
#define AVAIL_IDX   1
#define AVAIL_RING  2
#define USED_FLAGS  0
#define USED_IDX    1
#define USED_RING   2 // entries of four units

static uint64_t avail_bytes(const struct virtq *vq) {
    return 2 * (AVAIL_RING + (uint64_t)vq->size + 1);
}
static uint64_t used_bytes(const struct virtq *vq) {
    return 2 * (USED_RING + 4 * (uint64_t)vq->size + 1);
}

static uint16_t load16(const uint16_t *p, int order) {
    return __atomic_load_n(p, order);
}

int virtq_init(struct virtq *vq, struct mem *mem, uint16_t size_max, void (*fail)(void *ctx, const char *why),
               void *fail_ctx) {
    *vq = (struct virtq){.mem = mem, .size_max = size_max, .fail = fail, .fail_ctx = fail_ctx};
    vq->segs = calloc(VIRTQ_CHAIN_MAX, sizeof(*vq->segs));
    vq->indirect = calloc(VIRTQ_CHAIN_MAX, sizeof(*vq->indirect));
    if (!vq->segs || !vq->indirect) {
        virtq_fini(vq);
        return -ENOMEM;
    }
    virtq_reset(vq);
    return 0;
}

static void rings_unmap(struct virtq *vq) {
    if (!vq->ready)
        return;
    mem_unmap(vq->mem, GPA(vq->desc_gpa), (uint64_t)vq->size * sizeof(struct vring_desc), false);
    mem_unmap(vq->mem, GPA(vq->avail_gpa), avail_bytes(vq), false);
    mem_unmap(vq->mem, GPA(vq->used_gpa), used_bytes(vq), false); // each write was announced when it was made
    vq->desc = NULL;
    vq->avail = vq->used = NULL;
    vq->ready = false;
}

void virtq_fini(struct virtq *vq) {
    rings_unmap(vq);
    free(vq->segs);
    free(vq->indirect);
    vq->segs = NULL;
    vq->indirect = NULL;
}

void virtq_reset(struct virtq *vq) {
    rings_unmap(vq);
    vq->size = vq->size_max;
    vq->vector = VIRTIO_MSI_NO_VECTOR;
    vq->desc_gpa = vq->avail_gpa = vq->used_gpa = 0;
    vq->broken = vq->event_idx = vq->indirect_ok = false;
    vq->last_avail = vq->used_idx = vq->signalled = vq->inflight = 0;
}

// Returns err, so that callers can fail and return in one line.
static int virtq_fail(struct virtq *vq, int err, const char *why) {
    if (vq->broken)
        return err;
    vq->broken = true;
    vq->fail(vq->fail_ctx, why);
    return err;
}

// A ring area must be one piece of host memory: its fields are then naturally aligned single loads and stores.
static void *ring_map(struct virtq *vq, uint64_t gpa, uint64_t len, uint64_t align, enum mem_access access) {
    struct iovec iov;
    if (gpa % align || mem_map(vq->mem, GPA(gpa), len, access, &iov, 1) != 1)
        return NULL;
    return iov.iov_base;
}

static int rings_map(struct virtq *vq) {
    uint64_t desc_len = (uint64_t)vq->size * sizeof(struct vring_desc);
    vq->desc = ring_map(vq, vq->desc_gpa, desc_len, VRING_DESC_ALIGN_SIZE, MEM_READ);
    if (!vq->desc)
        return virtq_fail(vq, -EFAULT, "descriptor table not in memory or not aligned");
    vq->avail = ring_map(vq, vq->avail_gpa, avail_bytes(vq), VRING_AVAIL_ALIGN_SIZE, MEM_READ);
    if (!vq->avail) {
        mem_unmap(vq->mem, GPA(vq->desc_gpa), desc_len, false);
        return virtq_fail(vq, -EFAULT, "available ring not in memory or not aligned");
    }
    vq->used = ring_map(vq, vq->used_gpa, used_bytes(vq), VRING_USED_ALIGN_SIZE, MEM_WRITE);
    if (!vq->used) {
        mem_unmap(vq->mem, GPA(vq->desc_gpa), desc_len, false);
        mem_unmap(vq->mem, GPA(vq->avail_gpa), avail_bytes(vq), false);
        return virtq_fail(vq, -EFAULT, "used ring not in memory or not aligned");
    }
    return 0;
}

int virtq_enable(struct virtq *vq, uint64_t features) {
    if (vq->ready)
        return 0;
    if (!vq->size || vq->size > vq->size_max || vq->size & (vq->size - 1))
        return virtq_fail(vq, -EINVAL, "queue size is no power of two up to the maximum");
    vq->event_idx = features & BIT_OF(VIRTIO_RING_F_EVENT_IDX);
    vq->indirect_ok = features & BIT_OF(VIRTIO_RING_F_INDIRECT_DESC);
    int ret = rings_map(vq);
    if (ret)
        return ret;
    vq->ready = true;
    return 0;
}

// ---- chains ----

// Size of one block that holds the element, its segments and `niov` iovecs.
static struct virtq_elem *elem_alloc(unsigned nsegs, unsigned niov) {
    struct virtq_elem *e = malloc(sizeof(*e) + nsegs * sizeof(e->segs[0]) + niov * sizeof(struct iovec));
    if (!e)
        return NULL;
    *e = (struct virtq_elem){.nsegs = nsegs};
    e->out = (struct iovec *)&e->segs[nsegs];
    return e;
}

// Ends the mappings of the first n segments; the first `written` bytes of the writable ones were written.
static void elem_unmap(struct virtq *vq, const struct virtq_elem *e, unsigned n, uint32_t written) {
    for (unsigned i = 0; i < n; i++) {
        const struct virtq_seg *s = &e->segs[i];
        uint32_t part = !s->writable ? 0 : s->len < written ? s->len : written;
        mem_unmap(vq->mem, GPA(s->gpa), part ? part : s->len, part != 0);
        written -= part;
    }
}

// A segment that crosses from one RAM block to the next takes two iovecs; a few spare ones do, blocks are few.
#define IOV_SPARE 8

static int elem_map(struct virtq *vq, struct virtq_elem *e) {
    unsigned used = 0, capacity = e->nsegs + IOV_SPARE;
    for (unsigned i = 0; i < e->nsegs; i++) {
        const struct virtq_seg *s = &e->segs[i];
        int n = mem_map(vq->mem, GPA(s->gpa), s->len, s->writable ? MEM_WRITE : MEM_READ, e->out + used,
                        (int)(capacity - used));
        if (n < 0) {
            elem_unmap(vq, e, i, 0);
            return n;
        }
        used += (unsigned)n;
        *(s->writable ? &e->nin : &e->nout) += (unsigned)n;
        *(s->writable ? &e->in_len : &e->out_len) += s->len;
    }
    e->in = e->out + e->nout; // the walker lets no readable segment follow a writable one
    return 0;
}

static struct virtq_elem *elem_make(struct virtq *vq, uint16_t head) {
    struct virtq_elem *e = elem_alloc(vq->nsegs, vq->nsegs + IOV_SPARE);
    if (!e) {
        virtq_fail(vq, -ENOMEM, "out of host memory");
        return NULL;
    }
    e->head = head;
    memcpy(e->segs, vq->segs, vq->nsegs * sizeof(e->segs[0]));
    if (elem_map(vq, e) < 0) {
        virtq_fail(vq, -EFAULT, "buffer is not in memory");
        free(e);
        return NULL;
    }
    return e;
}

struct virtq_elem *virtq_pop(struct virtq *vq) {
    const char *why;
    if (!vq->ready || vq->broken)
        return NULL;
    // Acquire: the ring entry and the descriptors are read after the index that announces them.
    uint16_t waiting = (uint16_t)(load16(&vq->avail[AVAIL_IDX], __ATOMIC_ACQUIRE) - vq->last_avail);
    if (!waiting)
        return NULL;
    // Beyond the ring, or a head in use twice: both would let a guest make us hold more than its queue.
    if (waiting > vq->size || vq->inflight >= vq->size) {
        virtq_fail(vq, -EINVAL, "more available entries than the queue holds");
        return NULL;
    }
    uint16_t head = load16(&vq->avail[AVAIL_RING + (vq->last_avail & (vq->size - 1))], __ATOMIC_RELAXED);
    if (virtq_walk(vq, head, &why) < 0) {
        virtq_fail(vq, -EINVAL, why);
        return NULL;
    }
    struct virtq_elem *e = elem_make(vq, head);
    if (!e)
        return NULL;
    vq->last_avail++;
    vq->inflight++;
    return e;
}

void virtq_unpop(struct virtq *vq, struct virtq_elem *e) {
    elem_unmap(vq, e, e->nsegs, 0);
    vq->last_avail--;
    vq->inflight--;
    free(e);
}

static void used_put(struct virtq *vq, uint16_t head, uint32_t len) {
    uint64_t offset = 2 * USED_RING + (uint64_t)(vq->used_idx & (vq->size - 1)) * sizeof(struct vring_used_elem);
    struct vring_used_elem *u = (struct vring_used_elem *)((uint8_t *)vq->used + offset);
    __atomic_store_n(&u->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&u->len, len, __ATOMIC_RELAXED);
    mem_unmap(vq->mem, GPA(vq->used_gpa + offset), sizeof(*u), true);
    vq->used_idx++;
}

void virtq_push(struct virtq *vq, struct virtq_elem *e, uint32_t written) {
    if (written > e->in_len)
        written = e->in_len;
    elem_unmap(vq, e, e->nsegs, written);
    if (vq->ready && !vq->broken)
        used_put(vq, e->head, written);
    vq->inflight--;
    free(e);
}

static void used_store16(struct virtq *vq, unsigned index, uint16_t v) {
    __atomic_store_n(&vq->used[index], v, __ATOMIC_RELEASE);
    mem_unmap(vq->mem, GPA(vq->used_gpa + 2 * (uint64_t)index), 2, true);
}

// VIRTIO 1.2, 2.7.7 and 2.7.10.
static bool interrupt_wanted(const struct virtq *vq, uint16_t before) {
    if (!vq->event_idx)
        return !(load16(&vq->avail[AVAIL_FLAGS], __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
    uint16_t event = load16(&vq->avail[AVAIL_RING + vq->size], __ATOMIC_RELAXED);
    return vring_need_event(event, vq->used_idx, before);
}

bool virtq_publish(struct virtq *vq) {
    uint16_t before = vq->signalled;
    if (!vq->ready || vq->broken || before == vq->used_idx)
        return false;
    used_store16(vq, USED_IDX, vq->used_idx);
    // The guest writes its wish, then looks at the index; we the other way round: one of us must see the other.
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    vq->signalled = vq->used_idx;
    return interrupt_wanted(vq, before);
}

void virtq_doorbell_off(struct virtq *vq) {
    // With EVENT_IDX the old event index stays behind, which already keeps the guest quiet.
    if (vq->ready && !vq->broken && !vq->event_idx)
        used_store16(vq, USED_FLAGS, VRING_USED_F_NO_NOTIFY);
}

bool virtq_doorbell_on(struct virtq *vq) {
    if (!vq->ready || vq->broken)
        return false;
    if (vq->event_idx)
        used_store16(vq, USED_RING + 4 * vq->size, vq->last_avail);
    else
        used_store16(vq, USED_FLAGS, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return load16(&vq->avail[AVAIL_IDX], __ATOMIC_RELAXED) != vq->last_avail;
}

// ---- state ----

void virtq_save(const struct virtq *vq, struct state_writer *w) {
    state_put_u16(w, vq->size);
    state_put_u16(w, vq->vector);
    state_put_u64(w, vq->desc_gpa);
    state_put_u64(w, vq->avail_gpa);
    state_put_u64(w, vq->used_gpa);
    state_put_u8(w, vq->ready);
    state_put_u8(w, vq->broken);
    state_put_u16(w, vq->last_avail);
    state_put_u16(w, vq->used_idx);
    state_put_u16(w, vq->signalled);
}

void virtq_load(struct virtq *vq, struct state_reader *r, uint64_t features) {
    virtq_reset(vq);
    vq->size = state_get_u16(r);
    vq->vector = state_get_u16(r);
    vq->desc_gpa = state_get_u64(r);
    vq->avail_gpa = state_get_u64(r);
    vq->used_gpa = state_get_u64(r);
    bool ready = state_get_u8(r), broken = state_get_u8(r);
    vq->last_avail = state_get_u16(r);
    vq->used_idx = state_get_u16(r);
    vq->signalled = state_get_u16(r);
    if (ready)
        virtq_enable(vq, features);
    vq->broken |= broken;
}
