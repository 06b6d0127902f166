// SPDX-License-Identifier: Apache-2.0
// virtio-net: one pair of queues over a struct net_backend. VIRTIO 1.2, 5.1.
//
// Doorbells are handled on the event-loop thread, because the user-mode network has one thread only; the guest's vCPU
// goes on meanwhile and one wake-up serves all frames that it has queued by then.
//
// Invariants: frames are copied out of guest memory before anything looks at them; no chain is held while vd.lock is
// free; the backend is called without vd.lock, since it may answer with a frame at once.
#include "virtio/net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/iov.h"
#include "virtio/net_backlog.h"
#include "virtio/virtio_pci.h"

#define BIT_OF(feature) (UINT64_C(1) << (feature))

enum { QUEUE_RX, QUEUE_TX, QUEUES };

#define QUEUE_SIZE    256
#define RX_CHAINS_MAX 128 // buffers that one frame may take
#define TX_BATCH      64  // frames sent before the loop thread does something else
#define HDR_BYTES     sizeof(struct virtio_net_hdr_v1)

struct virtio_net {
    struct virtio_device vd;
    struct net_backend *backend;
    uint8_t mac[6];
    uint8_t tx[NET_FRAME_MAX];  // loop thread only
    struct net_backlog backlog; // under vd.lock
};

static struct virtio_net *from_vd(struct virtio_device *vd) {
    return CONTAINER_OF(vd, struct virtio_net, vd);
}

// ---- receive ----

struct rx_chains {
    struct virtq_elem *elems[RX_CHAINS_MAX];
    unsigned count;
    size_t bytes;
};

enum rx_result { RX_DONE, RX_WAIT, RX_DROP };

static void rx_put_back(struct virtq *vq, struct rx_chains *c) {
    while (c->count)
        virtq_unpop(vq, c->elems[--c->count]);
}

// Takes chains until they hold `need` bytes.
static enum rx_result rx_collect(struct virtq *vq, struct rx_chains *c, size_t need, bool mergeable) {
    while (c->bytes < need) {
        if (c->count == (mergeable ? RX_CHAINS_MAX : 1))
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

static void rx_store(struct virtq *vq, struct rx_chains *c, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame,
                     size_t len) {
    size_t hdr_done = 0, done = 0;
    for (unsigned i = 0; i < c->count; i++) {
        struct virtq_elem *e = c->elems[i];
        size_t h = iov_from_buf(e->in, e->nin, 0, (const uint8_t *)hdr + hdr_done, HDR_BYTES - hdr_done);
        size_t d = iov_from_buf(e->in, e->nin, h, frame + done, len - done);
        hdr_done += h;
        done += d;
        virtq_push(vq, e, (uint32_t)(h + d));
    }
}

// vd.lock held.
static enum rx_result rx_frame(struct virtio_net *net, const uint8_t *frame, size_t len) {
    struct virtq *vq = &net->vd.queues[QUEUE_RX];
    struct rx_chains c = {.count = 0};
    enum rx_result r = rx_collect(vq, &c, HDR_BYTES + len, virtio_has(&net->vd, VIRTIO_NET_F_MRG_RXBUF));
    if (r != RX_DONE) {
        rx_put_back(vq, &c);
        return r;
    }
    struct virtio_net_hdr_v1 hdr = {.num_buffers = (uint16_t)c.count};
    if (virtio_has(&net->vd, VIRTIO_NET_F_GUEST_CSUM))
        hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    rx_store(vq, &c, &hdr, frame, len);
    return RX_DONE;
}

// Gives the guest what has waited. vd.lock held.
static void rx_backlog(struct virtio_net *net) {
    while (net->backlog.head && rx_frame(net, net->backlog.head->data, net->backlog.head->len) != RX_WAIT)
        net_backlog_drop_first(&net->backlog);
    if (!net->backlog.head)
        virtq_doorbell_off(&net->vd.queues[QUEUE_RX]); // new buffers are of no interest before the next frame
    virtio_publish(&net->vd, QUEUE_RX);
}

static void rx_run(struct virtio_net *net) {
    pthread_mutex_lock(&net->vd.lock);
    if (virtio_live(&net->vd))
        rx_backlog(net);
    pthread_mutex_unlock(&net->vd.lock);
}

struct rx_event {
    struct virtio_net *net;
    const uint8_t *frame;
    size_t len;
};

static void rx_commit(void *ctx) {
    const struct rx_event *ev = ctx;
    struct virtio_net *net = ev->net;
    pthread_mutex_lock(&net->vd.lock);
    // Behind what waits already, so that order is kept.
    if (virtio_live(&net->vd) && net_backlog_add(&net->backlog, ev->frame, ev->len))
        rx_backlog(net);
    pthread_mutex_unlock(&net->vd.lock);
}

static void backend_receive(void *ctx, const uint8_t *frame, size_t len) {
    struct rx_event ev = {.net = ctx, .frame = frame, .len = len};
    nondet_commit(&ev.net->vd.machine->nondet, rx_commit, &ev);
}

// ---- transmit ----

static bool hdr_acceptable(const struct virtio_net_hdr_v1 *hdr, size_t len) {
    if (hdr->gso_type != VIRTIO_NET_HDR_GSO_NONE) // never offered
        return false;
    return !(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || (size_t)hdr->csum_start + hdr->csum_offset + 2 <= len;
}

// Copies a frame out of its chain. False for one that cannot be sent, which is then dropped as a wire would.
static bool tx_copy(struct virtio_net *net, const struct virtq_elem *e, struct net_packet *p) {
    struct virtio_net_hdr_v1 hdr;
    if (e->out_len < HDR_BYTES || e->out_len - HDR_BYTES > sizeof(net->tx))
        return false;
    iov_to_buf(e->out, e->nout, 0, &hdr, sizeof(hdr));
    *p = (struct net_packet){.data = net->tx, .len = e->out_len - HDR_BYTES};
    if (!hdr_acceptable(&hdr, p->len))
        return false;
    iov_to_buf(e->out, e->nout, HDR_BYTES, net->tx, p->len);
    p->needs_csum = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && virtio_has(&net->vd, VIRTIO_NET_F_CSUM);
    p->csum_start = hdr.csum_start;
    p->csum_offset = hdr.csum_offset;
    return true;
}

// Takes one chain and sends it. False when there is none.
static bool tx_one(struct virtio_net *net) {
    struct virtq *vq = &net->vd.queues[QUEUE_TX];
    struct net_packet p = {0};
    bool send = false;
    pthread_mutex_lock(&net->vd.lock);
    struct virtq_elem *e = virtio_live(&net->vd) ? virtq_pop(vq) : NULL;
    if (e) {
        send = tx_copy(net, e, &p);
        virtq_push(vq, e, 0);
    }
    pthread_mutex_unlock(&net->vd.lock);
    if (send)
        net->backend->ops->send(net->backend, &p);
    return e != NULL;
}

// Shows the guest what was sent; returns true when more came in meanwhile.
static bool tx_end(struct virtio_net *net) {
    bool more = false;
    pthread_mutex_lock(&net->vd.lock);
    if (virtio_live(&net->vd)) {
        more = virtq_doorbell_on(&net->vd.queues[QUEUE_TX]);
        virtio_publish(&net->vd, QUEUE_TX);
    }
    pthread_mutex_unlock(&net->vd.lock);
    return more;
}

static void tx_run(struct virtio_net *net) {
    for (unsigned i = 0; i < TX_BATCH && tx_one(net); i++)
        ;
    net->backend->ops->flush(net->backend);
    if (tx_end(net))
        virtio_defer(&net->vd, QUEUE_TX);
}

// ---- device ----

static void net_handle_queue(struct virtio_device *vd, unsigned queue) {
    struct virtio_net *net = from_vd(vd);
    if (queue == QUEUE_TX)
        tx_run(net);
    else
        rx_run(net);
}

static void net_config(struct virtio_device *vd, uint8_t *buf) {
    const struct virtio_net *net = from_vd(vd);
    struct virtio_net_config config = {
        .status = VIRTIO_NET_S_LINK_UP,
        .max_virtqueue_pairs = 1,
        .mtu = (uint16_t)net->backend->mtu,
    };
    memcpy(config.mac, net->mac, sizeof(config.mac));
    memcpy(buf, &config, vd->ops->config_len);
}

static void net_pause(struct virtio_device *vd) {
    from_vd(vd)->backend->ops->pause(from_vd(vd)->backend);
}
static void net_resume(struct virtio_device *vd) {
    from_vd(vd)->backend->ops->resume(from_vd(vd)->backend);
}
static void net_reset(struct virtio_device *vd) {
    net_backlog_clear(&from_vd(vd)->backlog);
}

static void net_free(struct virtio_net *net) {
    net_backlog_clear(&net->backlog);
    virtio_device_fini(&net->vd);
    free(net);
}

static void net_device_destroy(struct virtio_device *vd) {
    struct virtio_net *net = from_vd(vd);
    net_destroy(net->backend);
    net_free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .class_code = 0x020000,
    .queues = QUEUES,
    .queue_size = {QUEUE_SIZE, QUEUE_SIZE},
    .config_len = offsetof(struct virtio_net_config, mtu) + 2,
    .doorbell_on_loop = true,
    .config_read = net_config,
    .handle_queue = net_handle_queue,
    .pause = net_pause,
    .reset = net_reset,
    .resume = net_resume,
    .destroy = net_device_destroy,
};

static const struct component_ops net_component = VIRTIO_COMPONENT_OPS("virtio-net", 1);

static uint64_t net_features(const struct net_backend *b) {
    uint64_t f = BIT_OF(VIRTIO_NET_F_MAC) | BIT_OF(VIRTIO_NET_F_STATUS) | BIT_OF(VIRTIO_NET_F_MRG_RXBUF) |
                 BIT_OF(VIRTIO_NET_F_MTU);
    // Software on both sides of the ring: where the backend sums, the guest need not.
    return b->csum ? f | BIT_OF(VIRTIO_NET_F_CSUM) | BIT_OF(VIRTIO_NET_F_GUEST_CSUM) : f;
}

int virtio_net_create(struct pci_host *host, unsigned slot, struct net_backend *backend, const uint8_t mac[6],
                      struct error *err) {
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set(err, -ENOMEM, "create virtio-net");
    net_backlog_init(&net->backlog);
    net->backend = backend;
    memcpy(net->mac, mac, sizeof(net->mac));
    int ret = virtio_device_init(&net->vd, &net_ops, pci_host_machine(host), net_features(backend), err);
    if (ret) {
        free(net);
        return ret;
    }
    ret = virtio_pci_attach(&net->vd, host, slot, &net_component, err);
    if (ret) {
        net_free(net);
        return ret;
    }
    backend->receive_ctx = net;
    backend->receive = backend_receive;
    return 0;
}
