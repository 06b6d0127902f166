// SPDX-License-Identifier: Apache-2.0
// Between net.c (the device), net_rx.c, net_tx.c and net_ctrl.c (its queues).
//
// Lock order: backend->lock, vd.lock.
#ifndef CICADA_VIRTIO_NET_PRIVATE_H
#define CICADA_VIRTIO_NET_PRIVATE_H

#include <linux/virtio_net.h>

#include "virtio/net.h"
#include "virtio/net_backlog.h"
#include "virtio/net_merge.h"
#include "virtio/virtio.h"

#define NET_HDR_BYTES sizeof(struct virtio_net_hdr_v1)

enum { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUE_CTRL, NET_QUEUES };

struct virtio_net {
    struct virtio_device vd;
    struct net_backend *backend;
    uint8_t mac[6];
    uint8_t tx[NET_FRAME_MAX]; // under backend->lock
    // Under vd.lock:
    uint64_t offloads_off; // VIRTIO_NET_F_GUEST_* that the driver has switched off since it negotiated them
    struct net_backlog backlog;
    struct net_merge merge;
};

#define NET_FEATURE(feature) (UINT64_C(1) << (feature))
#define NET_RX_OFFLOADS      (NET_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | NET_FEATURE(VIRTIO_NET_F_GUEST_TSO4))

static inline struct virtio_net *net_from_vd(struct virtio_device *vd) {
    return CONTAINER_OF(vd, struct virtio_net, vd);
}

// Sets the backend's callbacks.
void net_rx_attach(struct virtio_net *net);
// The driver has added buffers. No lock held.
void net_rx_run(struct virtio_net *net);
// Shows the guest all that has been received. vd.lock held.
void net_rx_flush(struct virtio_net *net);
void net_rx_clear(struct virtio_net *net); // vd.lock held

// Sends what is in the queue, up to a batch; returns true when some is left. backend->lock held.
bool net_tx_run(struct virtio_net *net);

// No lock held.
void net_ctrl_run(struct virtio_net *net);

#endif
