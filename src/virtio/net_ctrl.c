// SPDX-License-Identifier: Apache-2.0
// The control queue: the driver switches receive offloads off and on, for instance where it hands frames on to a link
// that cannot take merged ones. VIRTIO 1.2, 5.1.6.5.
#include <linux/virtio_config.h>

#include "virtio/iov.h"
#include "virtio/net_private.h"

#define BATCH 64 // commands; a driver waits for each

// VIRTIO 1.2, 5.1.6.5.6: only what was negotiated.
static uint8_t set_offloads(struct virtio_net *net, const struct virtq_elem *e) {
    uint64_t wanted;
    if (e->out_len != sizeof(struct virtio_net_ctrl_hdr) + sizeof(wanted) ||
        !virtio_has(&net->vd, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
        return VIRTIO_NET_ERR;
    iov_to_buf(e->out, e->nout, sizeof(struct virtio_net_ctrl_hdr), &wanted, sizeof(wanted));
    if (wanted & ~(net->vd.acked & NET_RX_OFFLOADS))
        return VIRTIO_NET_ERR;
    net_rx_flush(net); // what was merged before the answer is seen is still legal, later it would not be
    net->offloads_off = NET_RX_OFFLOADS & ~wanted;
    return VIRTIO_NET_OK;
}

static uint8_t command(struct virtio_net *net, const struct virtq_elem *e) {
    struct virtio_net_ctrl_hdr hdr;
    if (iov_to_buf(e->out, e->nout, 0, &hdr, sizeof(hdr)) != sizeof(hdr))
        return VIRTIO_NET_ERR;
    if (hdr.class == VIRTIO_NET_CTRL_GUEST_OFFLOADS && hdr.cmd == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET)
        return set_offloads(net, e);
    return VIRTIO_NET_ERR;
}

// vd.lock held.
static bool run_one(struct virtio_net *net) {
    struct virtq *vq = &net->vd.queues[NET_QUEUE_CTRL];
    struct virtq_elem *e = virtio_live(&net->vd) ? virtq_pop(vq) : NULL;
    if (!e)
        return false;
    uint8_t ack = command(net, e);
    virtq_push(vq, e, (uint32_t)iov_from_buf(e->in, e->nin, 0, &ack, sizeof(ack)));
    return true;
}

void net_ctrl_run(struct virtio_net *net) {
    bool more = false;
    pthread_mutex_lock(&net->vd.lock);
    for (unsigned i = 0; i < BATCH && (more = run_one(net)); i++)
        ;
    if (virtio_live(&net->vd)) {
        more |= virtq_doorbell_on(&net->vd.queues[NET_QUEUE_CTRL]);
        virtio_publish(&net->vd, NET_QUEUE_CTRL);
    }
    pthread_mutex_unlock(&net->vd.lock);
    if (more)
        virtio_defer(&net->vd, NET_QUEUE_CTRL);
}
