// SPDX-License-Identifier: Apache-2.0
// TCP frames for the tests of the network: Ethernet, IPv4 and TCP headers without options, right checksums.
#ifndef CICADA_TESTS_NET_FRAMES_H
#define CICADA_TESTS_NET_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "backend/inet_sum.h"

#define TCP_ACK 0x10
#define TCP_PSH 0x08

static inline uint16_t frame_get16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void frame_put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline uint16_t frame_pseudo_sum(const uint8_t *f, size_t len) {
    return inet_sum_add(inet_sum_add(inet_sum(f + 26, 8), 6), (uint16_t)(len - 34));
}

static inline bool frame_tcp_sum_ok(const uint8_t *f, size_t len) {
    return inet_sum_add(frame_pseudo_sum(f, len), inet_sum(f + 34, len - 34)) == 0xffff;
}

// From 10.0.2.2:80 to 10.0.2.15:4000, payload made from its place in the stream. Returns the length.
static inline size_t frame_tcp(uint8_t *f, uint32_t seq, uint8_t flags, size_t payload) {
    static const uint8_t head[54] = {
        0x52, 0x54, 0,  1,   2, 3, 0x52, 0x55, 10, 0, 2, 2,   8,    0,                        // Ethernet
        0x45, 0,    0,  0,   0, 0, 0,    0,    64, 6, 0, 0,   10,   0, 2,    2, 10, 0, 2, 15, // IPv4
        0,    80,   15, 160, 0, 0, 0,    0,    0,  0, 3, 232, 0x50, 0, 0x20, 0, 0,  0, 0, 0,
    };
    size_t len = sizeof(head) + payload;
    memcpy(f, head, sizeof(head));
    frame_put16(f + 16, (uint16_t)(len - 14));
    frame_put16(f + 18, (uint16_t)(seq * 7)); // the identification differs from frame to frame
    frame_put16(f + 24, (uint16_t)~inet_sum(f + 14, 20));
    frame_put16(f + 38, (uint16_t)(seq >> 16));
    frame_put16(f + 40, (uint16_t)seq);
    f[47] = flags;
    for (size_t i = 0; i < payload; i++)
        f[sizeof(head) + i] = (uint8_t)((seq + i) * 13 ^ (seq + i) >> 8);
    frame_put16(f + 50, (uint16_t)~inet_sum_add(frame_pseudo_sum(f, len), inet_sum(f + 34, len - 34)));
    return len;
}

#endif
