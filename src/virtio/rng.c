// SPDX-License-Identifier: Apache-2.0
// virtio-rng: fills the guest's buffers from the machine's one source of randomness, at a limited rate, so that a
// guest that asks without end does not keep a host core busy. VIRTIO 1.2, 5.4.
//
// Invariants: no chain is held between two calls; a chain that finds the budget empty stays in the ring until the
// timer looks again.
#include "virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "virtio/iov.h"
#include "virtio/virtio_pci.h"

#define QUEUE_SIZE   8
#define RATE_DEFAULT (1u << 20)
#define BURST_BYTES  65536u
#define NSEC_PER_SEC UINT64_C(1000000000)
#define RETRY_NS     (10 * UINT64_C(1000000))

struct virtio_rng {
    struct virtio_device vd;
    uint64_t rate;       // bytes a second, fixed
    struct vtimer retry; // runs on the loop thread
    // Under vd.lock:
    uint64_t budget;    // bytes that may be given out now
    uint64_t budget_ns; // when budget was brought up to date
};

static struct virtio_rng *from_vd(struct virtio_device *vd) {
    return CONTAINER_OF(vd, struct virtio_rng, vd);
}

static void budget_refill(struct virtio_rng *rng) {
    uint64_t now = clock_now_ns(&rng->vd.machine->clock);
    uint64_t elapsed = now > rng->budget_ns ? now - rng->budget_ns : 0;
    if (elapsed > NSEC_PER_SEC) // also keeps the product in range
        elapsed = NSEC_PER_SEC;
    uint64_t more = (uint64_t)((unsigned __int128)elapsed * rng->rate / NSEC_PER_SEC);
    if (!more)
        return;
    rng->budget = rng->budget + more < BURST_BYTES ? rng->budget + more : BURST_BYTES;
    rng->budget_ns = now;
}

static uint32_t fill(struct virtio_rng *rng, const struct virtq_elem *e) {
    uint8_t buf[512];
    uint32_t len = e->in_len < rng->budget ? e->in_len : (uint32_t)rng->budget;
    for (uint32_t done = 0; done < len;) {
        uint32_t n = len - done < sizeof(buf) ? len - done : (uint32_t)sizeof(buf);
        nondet_random(&rng->vd.machine->nondet, buf, n);
        iov_from_buf(e->in, e->nin, done, buf, n);
        done += n;
    }
    rng->budget -= len;
    return len;
}

// Returns false where the budget is used up before the chains are.
static bool serve(struct virtio_rng *rng) {
    struct virtq *vq = &rng->vd.queues[0];
    struct virtq_elem *e;
    do {
        virtq_doorbell_off(vq);
        for (unsigned i = 0; i < QUEUE_SIZE && rng->budget && (e = virtq_pop(vq)); i++)
            virtq_push(vq, e, fill(rng, e));
    } while (virtq_doorbell_on(vq) && rng->budget);
    virtio_publish(&rng->vd, 0);
    return rng->budget != 0;
}

static void rng_handle_queue(struct virtio_device *vd, unsigned queue) {
    struct virtio_rng *rng = from_vd(vd);
    pthread_mutex_lock(&vd->lock);
    if (virtio_live(vd)) {
        budget_refill(rng);
        if (!serve(rng))
            vtimer_arm(&rng->retry, clock_now_ns(&vd->machine->clock) + RETRY_NS);
    }
    pthread_mutex_unlock(&vd->lock);
}

static void on_retry(void *ctx) {
    rng_handle_queue(ctx, 0);
}

static void rng_config(struct virtio_device *vd, uint8_t *buf) {}

static void rng_destroy(struct virtio_device *vd) {
    struct virtio_rng *rng = from_vd(vd);
    vtimer_fini(&rng->retry);
    virtio_device_fini(vd);
    free(rng);
}

static const struct virtio_device_ops rng_ops = {
    .name = "virtio-rng",
    .id = VIRTIO_ID_RNG,
    .class_code = 0x00ff00,
    .queues = 1,
    .queue_size = {QUEUE_SIZE},
    .config_read = rng_config,
    .handle_queue = rng_handle_queue,
    .destroy = rng_destroy,
};

static const struct component_ops rng_component = VIRTIO_COMPONENT_OPS("virtio-rng", 1);

int virtio_rng_create(struct pci_host *host, unsigned slot, uint64_t bytes_per_second, struct error *err) {
    struct machine *m = pci_host_machine(host);
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return error_set(err, -ENOMEM, "create virtio-rng");
    int ret = virtio_device_init(&rng->vd, &rng_ops, m, 0, err);
    if (ret) {
        free(rng);
        return ret;
    }
    rng->rate = bytes_per_second ? bytes_per_second : RATE_DEFAULT;
    rng->budget = BURST_BYTES;
    vtimer_init(&rng->retry, &m->clock, on_retry, &rng->vd);
    ret = virtio_pci_attach(&rng->vd, host, slot, &rng_component, err);
    if (ret)
        rng_destroy(&rng->vd);
    return ret;
}
