// SPDX-License-Identifier: Apache-2.0
// The Internet checksum. RFC 1071.
#ifndef CICADA_BACKEND_INET_SUM_H
#define CICADA_BACKEND_INET_SUM_H

#include <stddef.h>
#include <stdint.h>

// The ones' complement sum of big-endian 16-bit words, not complemented; an odd last byte counts as a high one.
// Sums of parts of even length add up: inet_sum_add folds the carry.
uint16_t inet_sum(const uint8_t *p, size_t len);

static inline uint16_t inet_sum_add(uint16_t a, uint16_t b) {
    uint32_t sum = (uint32_t)a + b;
    return (uint16_t)(sum + (sum >> 16));
}

#endif
