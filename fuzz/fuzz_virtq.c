// SPDX-License-Identifier: Apache-2.0
// Fuzzes the chain walker: the input is what a guest wrote into its rings. Nothing may be reached outside of RAM, no
// chain may be handed out twice beyond the queue's size, and each round must end.
#include <stdlib.h>
#include <string.h>

#include "virtio/iov.h"
#include "virtio/virtq.h"

#define RAM   0x40000u
#define SIZE  16
#define DESC  0x0000
#define AVAIL 0x0200
#define USED  0x0300
#define RINGS 0x1000 // the input is laid over this much from address 0, indirect tables among it

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_fail(void *ctx, const char *why) {
    ++*(unsigned *)ctx;
}

static struct mem *guest(void) {
    static struct mem *mem;
    struct error err = {0};
    if (!mem && (mem_create(&mem, &err) || mem_add_ram(mem, GPA(0), RAM, "ram", &err)))
        abort();
    return mem;
}

// Touches all that was handed out, so that a wrong iovec is a report of the sanitizer.
static void use(struct virtq *vq, struct virtq_elem *e) {
    uint8_t buf[256] = {0};
    if (e->out_len > (uint64_t)VIRTQ_CHAIN_MAX * RAM || e->in_len > (uint64_t)VIRTQ_CHAIN_MAX * RAM)
        abort();
    for (size_t at = 0; at < e->out_len && at < 4 * RAM; at += sizeof(buf))
        iov_to_buf(e->out, e->nout, at, buf, sizeof(buf));
    // Not over the rings: what the guest offers there is its own affair, but the input should stay as it is.
    uint32_t len = e->in_len < sizeof(buf) ? e->in_len : sizeof(buf);
    iov_from_buf(e->in, e->nin, 0, buf, len);
    virtq_push(vq, e, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct virtq vq;
    struct virtq_elem *held[SIZE + 1];
    unsigned fails = 0, n = 0;
    uint8_t rings[RINGS] = {0};
    if (size < 1)
        return 0;
    memcpy(rings, data + 1, size - 1 < RINGS ? size - 1 : RINGS);
    if (mem_write(guest(), GPA(0), rings, RINGS) || virtq_init(&vq, guest(), SIZE, on_fail, &fails))
        abort();
    vq.desc_gpa = DESC;
    vq.avail_gpa = AVAIL;
    vq.used_gpa = USED;
    // Bits 28 and 29: INDIRECT_DESC and EVENT_IDX.
    if (virtq_enable(&vq, (uint64_t)(data[0] & 3) << 28))
        abort();
    while ((held[n] = virtq_pop(&vq)))
        if (++n > SIZE)
            abort(); // more in flight than the queue holds
    if (data[0] & 4 && n)
        virtq_unpop(&vq, held[--n]);
    while (n)
        use(&vq, held[--n]);
    virtq_publish(&vq);
    virtq_doorbell_off(&vq);
    virtq_doorbell_on(&vq);
    if (fails > 1 || vq.inflight)
        abort(); // one complaint a queue, nothing lost
    virtq_fini(&vq);
    return 0;
}
