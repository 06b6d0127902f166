// SPDX-License-Identifier: Apache-2.0
// virtio-net, from the guest to the backend. VIRTIO 1.2, 5.1.6.2.
//
// Invariants: a frame is copied out of guest memory before anything looks at it; what its header says is checked
// against the copy; no chain is held while vd.lock is free.
#include "virtio/iov.h"
#include "virtio/net_private.h"

#define BATCH 64 // frames sent before the thread does something else

// Which feature allows the kind of segmentation; false for one that does not exist.
static bool gso_negotiated(const struct virtio_net *net, uint8_t type) {
    switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4: return virtio_has(&net->vd, VIRTIO_NET_F_HOST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6: return virtio_has(&net->vd, VIRTIO_NET_F_HOST_TSO6);
    default: return false;
    }
}

// hdr_len is a hint only, which is not used.
static bool gso_acceptable(const struct virtio_net *net, const struct virtio_net_hdr_v1 *hdr) {
    if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE)
        return true;
    if (hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN && !virtio_has(&net->vd, VIRTIO_NET_F_HOST_ECN))
        return false;
    return gso_negotiated(net, hdr->gso_type) && hdr->gso_size && hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
}

static bool csum_acceptable(const struct virtio_net *net, const struct virtio_net_hdr_v1 *hdr, size_t len) {
    if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return true;
    return virtio_has(&net->vd, VIRTIO_NET_F_CSUM) && (size_t)hdr->csum_start + hdr->csum_offset + 2 <= len;
}

// Copies a frame out of its chain. False for one that cannot be sent, which is then dropped as a wire would.
static bool copy_frame(struct virtio_net *net, const struct virtq_elem *e, struct net_packet *p) {
    struct virtio_net_hdr_v1 hdr;
    if (e->out_len < NET_HDR_BYTES || e->out_len - NET_HDR_BYTES > sizeof(net->tx))
        return false;
    iov_to_buf(e->out, e->nout, 0, &hdr, sizeof(hdr));
    *p = (struct net_packet){.data = net->tx, .len = e->out_len - NET_HDR_BYTES};
    if (!gso_acceptable(net, &hdr) || !csum_acceptable(net, &hdr, p->len))
        return false;
    iov_to_buf(e->out, e->nout, NET_HDR_BYTES, net->tx, p->len);
    p->needs_csum = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    p->csum_start = hdr.csum_start;
    p->csum_offset = hdr.csum_offset;
    return true;
}

// Takes one chain and sends it. False when there is none.
static bool send_one(struct virtio_net *net) {
    struct virtq *vq = &net->vd.queues[NET_QUEUE_TX];
    struct net_packet p = {0};
    bool send = false;
    pthread_mutex_lock(&net->vd.lock);
    struct virtq_elem *e = virtio_live(&net->vd) ? virtq_pop(vq) : NULL;
    if (e) {
        send = copy_frame(net, e, &p);
        virtq_push(vq, e, 0);
    }
    pthread_mutex_unlock(&net->vd.lock);
    if (send)
        net->backend->ops->send(net->backend, &p);
    return e != NULL;
}

// Shows the guest what was sent, and what came back meanwhile; returns true when there is more to send.
static bool end_batch(struct virtio_net *net) {
    bool more = false;
    pthread_mutex_lock(&net->vd.lock);
    if (virtio_live(&net->vd)) {
        more = virtq_doorbell_on(&net->vd.queues[NET_QUEUE_TX]);
        virtio_publish(&net->vd, NET_QUEUE_TX);
        net_rx_flush(net);
    }
    pthread_mutex_unlock(&net->vd.lock);
    return more;
}

bool net_tx_run(struct virtio_net *net) {
    for (unsigned i = 0; i < BATCH && send_one(net); i++)
        ;
    net->backend->ops->flush(net->backend);
    return end_batch(net);
}
