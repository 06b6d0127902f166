// SPDX-License-Identifier: Apache-2.0
// virtio-net, from the backend to the guest. VIRTIO 1.2, 5.1.6.3 and 5.1.6.4.
//
// Frames of one run of the backend are merged into large ones where the driver takes these, and are shown to the guest
// at the end of the run, with one interrupt.
//
// Invariants: frames keep their order: what is being merged comes behind what waits in the backlog, and is put there
// before another frame is.
#include "virtio/iov.h"
#include "virtio/net_private.h"

#define CHAINS_MAX 128 // buffers that one frame may take

struct rx_chains {
    struct virtq_elem *elems[CHAINS_MAX];
    unsigned count;
    size_t bytes;
};

enum rx_result { RX_DONE, RX_WAIT, RX_DROP };

static bool offload_on(const struct virtio_net *net, unsigned feature) {
    return virtio_has(&net->vd, feature) && !(net->offloads_off & NET_FEATURE(feature));
}

// ---- into the ring ----

static void put_back(struct virtq *vq, struct rx_chains *c) {
    while (c->count)
        virtq_unpop(vq, c->elems[--c->count]);
}

// Takes chains until they hold `need` bytes.
static enum rx_result collect(struct virtq *vq, struct rx_chains *c, size_t need, bool mergeable) {
    while (c->bytes < need) {
        if (c->count == (mergeable ? CHAINS_MAX : 1))
            return RX_DROP; // does not fit into what the driver calls buffers
        struct virtq_elem *e = virtq_pop(vq);
        // Ask for a doorbell before the chains are put back: it is due for the next one after those we have seen.
        if (!e && virtq_doorbell_on(vq))
            continue;
        if (!e)
            return RX_WAIT;
        c->elems[c->count++] = e;
        c->bytes += e->in_len;
    }
    return RX_DONE;
}

static void store(struct virtq *vq, struct rx_chains *c, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame,
                  size_t len) {
    size_t hdr_done = 0, done = 0;
    for (unsigned i = 0; i < c->count; i++) {
        struct virtq_elem *e = c->elems[i];
        size_t h = iov_from_buf(e->in, e->nin, 0, (const uint8_t *)hdr + hdr_done, NET_HDR_BYTES - hdr_done);
        size_t d = iov_from_buf(e->in, e->nin, h, frame + done, len - done);
        hdr_done += h;
        done += d;
        virtq_push(vq, e, (uint32_t)(h + d));
    }
}

static enum rx_result put_frame(struct virtio_net *net, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame,
                                size_t len) {
    struct virtq *vq = &net->vd.queues[NET_QUEUE_RX];
    struct virtio_net_hdr_v1 h = *hdr;
    struct rx_chains c = {.count = 0};
    enum rx_result r = collect(vq, &c, NET_HDR_BYTES + len, virtio_has(&net->vd, VIRTIO_NET_F_MRG_RXBUF));
    if (r != RX_DONE) {
        put_back(vq, &c);
        return r;
    }
    h.num_buffers = (uint16_t)c.count;
    store(vq, &c, &h, frame, len);
    return RX_DONE;
}

static void put_backlog(struct virtio_net *net) {
    struct net_frame *f;
    while ((f = net->backlog.head) && put_frame(net, &f->hdr, f->data, f->len) != RX_WAIT)
        net_backlog_drop_first(&net->backlog);
}

// Behind what waits already. What finds no room is dropped, as a wire would.
static void put(struct virtio_net *net, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, size_t len) {
    put_backlog(net);
    if (net->backlog.head || put_frame(net, hdr, frame, len) == RX_WAIT)
        net_backlog_add(&net->backlog, hdr, frame, len);
}

// ---- merging ----

static void put_merged(struct virtio_net *net) {
    struct virtio_net_hdr_v1 hdr;
    size_t len = net_merge_take(&net->merge, &hdr);
    if (len)
        put(net, &hdr, net->merge.frame, len);
}

static bool merged(struct virtio_net *net, const uint8_t *frame, size_t len) {
    if (!offload_on(net, VIRTIO_NET_F_GUEST_TSO4) || !offload_on(net, VIRTIO_NET_F_GUEST_CSUM))
        return false;
    if (net_merge_add(&net->merge, frame, len))
        return true;
    put_merged(net);
    return net_merge_add(&net->merge, frame, len);
}

// ---- from the backend ----

struct rx_event {
    struct virtio_net *net;
    const uint8_t *frame;
    size_t len;
};

static void commit_frame(void *ctx) {
    const struct rx_event *ev = ctx;
    struct virtio_net *net = ev->net;
    struct virtio_net_hdr_v1 hdr = {0};
    pthread_mutex_lock(&net->vd.lock);
    if (virtio_live(&net->vd) && !merged(net, ev->frame, ev->len)) {
        if (offload_on(net, VIRTIO_NET_F_GUEST_CSUM))
            hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID;
        put(net, &hdr, ev->frame, ev->len);
    }
    pthread_mutex_unlock(&net->vd.lock);
}

static void on_receive(void *ctx, const uint8_t *frame, size_t len) {
    struct rx_event ev = {.net = ctx, .frame = frame, .len = len};
    nondet_commit(&ev.net->vd.machine->nondet, commit_frame, &ev);
}

void net_rx_flush(struct virtio_net *net) {
    put_merged(net);
    put_backlog(net);
    if (!net->backlog.head)
        virtq_doorbell_off(&net->vd.queues[NET_QUEUE_RX]); // new buffers are of no interest before the next frame
    virtio_publish(&net->vd, NET_QUEUE_RX);
}

void net_rx_run(struct virtio_net *net) {
    pthread_mutex_lock(&net->vd.lock);
    if (virtio_live(&net->vd))
        net_rx_flush(net);
    pthread_mutex_unlock(&net->vd.lock);
}

static void on_received(void *ctx) {
    net_rx_run(ctx);
}

void net_rx_clear(struct virtio_net *net) {
    net_backlog_clear(&net->backlog);
    net_merge_clear(&net->merge);
}

void net_rx_attach(struct virtio_net *net) {
    net_backlog_init(&net->backlog);
    net->backend->receive_ctx = net;
    net->backend->received = on_received;
    net->backend->receive = on_receive;
}
