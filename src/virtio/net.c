// SPDX-License-Identifier: Apache-2.0
// virtio-net: receive, transmit and control queue over a struct net_backend. VIRTIO 1.2, 5.1.
//
// A doorbell of the transmit queue is handled on the vCPU thread that rings: the frames go through the user-mode
// network into a socket, and its acknowledgements into the receive queue, without a switch to another thread. Only
// where the backend is busy on another thread the event loop takes over, and the guest goes on meanwhile.
#include "virtio/net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/net_private.h"
#include "virtio/virtio_pci.h"

#define QUEUE_SIZE      256
#define CTRL_QUEUE_SIZE 64
#define STATE_VERSION   2 // 2: control queue, and with it another table of MSI-X

// ---- doorbells ----

static void handle_tx(struct virtio_net *net) {
    bool more = net_tx_run(net);
    pthread_mutex_unlock(&net->backend->lock);
    if (more)
        virtio_defer(&net->vd, NET_QUEUE_TX);
}

static bool net_try_queue(struct virtio_device *vd, unsigned queue) {
    struct virtio_net *net = net_from_vd(vd);
    switch (queue) {
    case NET_QUEUE_RX: net_rx_run(net); return true;
    case NET_QUEUE_CTRL: net_ctrl_run(net); return true;
    default:
        if (pthread_mutex_trylock(&net->backend->lock))
            return false;
        handle_tx(net);
        return true;
    }
}

static void net_handle_queue(struct virtio_device *vd, unsigned queue) {
    if (net_try_queue(vd, queue))
        return;
    pthread_mutex_lock(&net_from_vd(vd)->backend->lock);
    handle_tx(net_from_vd(vd));
}

// ---- device ----

static void net_config(struct virtio_device *vd, uint8_t *buf) {
    const struct virtio_net *net = net_from_vd(vd);
    struct virtio_net_config config = {
        .status = VIRTIO_NET_S_LINK_UP,
        .max_virtqueue_pairs = 1,
        .mtu = (uint16_t)net->backend->mtu,
    };
    memcpy(config.mac, net->mac, sizeof(config.mac));
    memcpy(buf, &config, vd->ops->config_len);
}

static void net_pause(struct virtio_device *vd) {
    net_from_vd(vd)->backend->ops->pause(net_from_vd(vd)->backend);
}
static void net_resume(struct virtio_device *vd) {
    net_from_vd(vd)->backend->ops->resume(net_from_vd(vd)->backend);
}
static void net_reset(struct virtio_device *vd) {
    net_rx_clear(net_from_vd(vd));
    net_from_vd(vd)->offloads_off = 0;
}

static void net_save(struct virtio_device *vd, struct state_writer *w) {
    state_put_u64(w, net_from_vd(vd)->offloads_off);
}

static void net_load(struct virtio_device *vd, struct state_reader *r) {
    net_rx_clear(net_from_vd(vd));
    net_from_vd(vd)->offloads_off = state_get_u64(r) & NET_RX_OFFLOADS;
}

static void net_free(struct virtio_net *net) {
    net_rx_clear(net);
    virtio_device_fini(&net->vd);
    free(net);
}

static void net_device_destroy(struct virtio_device *vd) {
    struct virtio_net *net = net_from_vd(vd);
    net_destroy(net->backend);
    net_free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .class_code = 0x020000,
    .queues = NET_QUEUES,
    .queue_size = {QUEUE_SIZE, QUEUE_SIZE, CTRL_QUEUE_SIZE},
    .config_len = offsetof(struct virtio_net_config, mtu) + 2,
    .doorbell_on_loop = true,
    .oldest_state = STATE_VERSION,
    .config_read = net_config,
    .handle_queue = net_handle_queue,
    .try_queue = net_try_queue,
    .pause = net_pause,
    .reset = net_reset,
    .resume = net_resume,
    .save = net_save,
    .load = net_load,
    .destroy = net_device_destroy,
};

static const struct component_ops net_component = VIRTIO_COMPONENT_OPS("virtio-net", STATE_VERSION);

// Software on both sides of the ring: where the backend sums and cuts, the guest need not.
static uint64_t net_features(const struct net_backend *b) {
    uint64_t f = NET_FEATURE(VIRTIO_NET_F_MAC) | NET_FEATURE(VIRTIO_NET_F_STATUS) |
                 NET_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | NET_FEATURE(VIRTIO_NET_F_MTU) |
                 NET_FEATURE(VIRTIO_NET_F_CTRL_VQ);
    if (b->csum)
        f |= NET_FEATURE(VIRTIO_NET_F_CSUM) | NET_RX_OFFLOADS | NET_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (b->csum && b->tso)
        f |= NET_FEATURE(VIRTIO_NET_F_HOST_TSO4) | NET_FEATURE(VIRTIO_NET_F_HOST_TSO6) |
             NET_FEATURE(VIRTIO_NET_F_HOST_ECN);
    return f;
}

int virtio_net_create(struct pci_host *host, unsigned slot, struct net_backend *backend, const uint8_t mac[6],
                      struct error *err) {
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set(err, -ENOMEM, "create virtio-net");
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
    net_rx_attach(net);
    return 0;
}
