// SPDX-License-Identifier: Apache-2.0
// Frames that wait until the guest has buffers: a short burst is kept, a flood is dropped.
#ifndef CICADA_VIRTIO_NET_BACKLOG_H
#define CICADA_VIRTIO_NET_BACKLOG_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_BACKLOG_BYTES (1u << 20) // in all

struct net_frame {
    struct net_frame *next;
    struct virtio_net_hdr_v1 hdr; // but for the number of buffers
    size_t len;
    uint8_t data[];
};

struct net_backlog {
    struct net_frame *head, **tail;
    size_t bytes;
};

void net_backlog_init(struct net_backlog *l);
// Copies the frame; false when it does not fit.
bool net_backlog_add(struct net_backlog *l, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, size_t len);
void net_backlog_drop_first(struct net_backlog *l); // not empty
void net_backlog_clear(struct net_backlog *l);

#endif
