// SPDX-License-Identifier: Apache-2.0
// A split virtqueue, device side: the only code that reads rings. Virtual I/O Device (VIRTIO) 1.2, 2.7.
//
// A device gets each descriptor chain as two iovec arrays and gives it back with the length it wrote. Everything that
// a guest can get wrong in a ring ends in virtq->fail, once, and the queue then stays silent until it is reset.
// No function here takes a lock: the device's lock is held by the caller in all of them.
#ifndef CICADA_VIRTIO_VIRTQ_H
#define CICADA_VIRTIO_VIRTQ_H

#include <sys/uio.h>

#include "core/mem.h"
#include "core/stateio.h"

#define VIRTQ_SIZE_MAX  1024
#define VIRTQ_CHAIN_MAX 1024 // descriptors of one chain, indirect ones included

struct virtq_seg {
    uint64_t gpa;
    uint32_t len;
    bool writable; // by the device
};

// One chain. The iovecs are the device's to cut and change; segs remember what is to be unmapped.
struct virtq_elem {
    uint16_t head;
    unsigned nout, nin;
    struct iovec *out, *in;   // device reads out, writes in
    uint32_t out_len, in_len; // bytes
    unsigned nsegs;
    struct virtq_seg segs[]; // the iovecs lie behind
};

struct vring_desc;

struct virtq {
    struct mem *mem;
    void (*fail)(void *ctx, const char *why);
    void *fail_ctx;
    // Set by the transport while not ready; reset to defaults by virtq_reset.
    uint16_t size_max, size;
    uint16_t vector; // MSI-X, VIRTIO_MSI_NO_VECTOR
    uint64_t desc_gpa, avail_gpa, used_gpa;
    bool ready;

    bool broken, event_idx, indirect_ok;
    uint16_t last_avail; // next entry of the available ring to take
    uint16_t used_idx;   // next entry of the used ring to fill; the guest sees it after virtq_publish
    uint16_t signalled;  // used_idx at the last decision about an interrupt
    uint16_t inflight;   // taken and not given back
    // Mapped while ready. Guest memory: every read of it is one load into a local.
    const struct vring_desc *desc;
    uint16_t *avail, *used;
    // Scratch of the walker.
    unsigned nsegs;
    struct virtq_seg *segs;      // VIRTQ_CHAIN_MAX
    struct vring_desc *indirect; // VIRTQ_CHAIN_MAX, the copy of an indirect table
};

int virtq_init(struct virtq *vq, struct mem *mem, uint16_t size_max, void (*fail)(void *ctx, const char *why),
               void *fail_ctx);
void virtq_fini(struct virtq *vq);
void virtq_reset(struct virtq *vq); // nothing in flight
// Maps the rings; features as negotiated. A bad size, alignment or address fails the queue: returns -EINVAL/-EFAULT.
int virtq_enable(struct virtq *vq, uint64_t features);

// The next chain, or NULL when there is none (or the queue is broken). To be given back by virtq_push.
struct virtq_elem *virtq_pop(struct virtq *vq);
// Puts back the chain that was taken last.
void virtq_unpop(struct virtq *vq, struct virtq_elem *elem);
// Gives a chain back with the number of bytes written from the start of `in`. Frees elem. Not visible to the guest
// until virtq_publish.
void virtq_push(struct virtq *vq, struct virtq_elem *elem, uint32_t written);
// Shows the guest all pushed chains. Returns true when it wants an interrupt for them.
bool virtq_publish(struct virtq *vq);

// While off the guest may leave out doorbells. Turning them on returns true when chains came in meanwhile.
void virtq_doorbell_off(struct virtq *vq);
bool virtq_doorbell_on(struct virtq *vq);

void virtq_save(const struct virtq *vq, struct state_writer *w);
// Maps the rings again where the queue was ready; a failure breaks the queue, not the load.
void virtq_load(struct virtq *vq, struct state_reader *r, uint64_t features);

#endif
