// SPDX-License-Identifier: Apache-2.0
// Merges TCP segments of one connection that follow each other into one packet, which the guest handles at the cost of
// one segment (VIRTIO_NET_F_GUEST_TSO4). IPv4. VIRTIO 1.2, 5.1.6.4; RFC 9293.
#ifndef CICADA_VIRTIO_NET_MERGE_H
#define CICADA_VIRTIO_NET_MERGE_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>

#include "backend/net.h"

struct net_merge {
    size_t len;        // bytes held in frame, 0: none
    size_t payload_at; // offset in frame
    size_t segment;    // payload of every frame but the last, in bytes
    unsigned count;    // frames in it
    uint32_t next_seq; // TCP sequence number behind it
    bool complete;     // nothing may follow
    uint8_t frame[NET_FRAME_MAX];
};

// Takes a frame (whose checksums are right) when it can begin a packet, or belongs behind what is held. False leaves
// what is held as it is: take that first; a frame then refused again is none that can be merged.
bool net_merge_add(struct net_merge *m, const uint8_t *frame, size_t len);
// Ends the packet: fills its header in and returns its length, or 0 when there is none. It stays in m->frame until the
// next net_merge_add.
size_t net_merge_take(struct net_merge *m, struct virtio_net_hdr_v1 *hdr);
void net_merge_clear(struct net_merge *m);

#endif
