// SPDX-License-Identifier: Apache-2.0
// The Internet checksum, eight bytes a step: the sum does not care for byte order until its end, and wide words add up
// to the same as their halves.
#include "backend/inet_sum.h"

#include <arpa/inet.h>
#include <string.h>

static uint64_t load(const uint8_t *p, size_t len) {
    uint64_t word = 0;
    memcpy(&word, p, len);
    return word;
}

uint16_t inet_sum(const uint8_t *p, size_t len) {
    uint64_t low = 0, high = 0; // no overflow below 32 GiB
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word = load(p, 8);
        low += (uint32_t)word;
        high += word >> 32;
    }
    uint64_t last = load(p, len);
    uint64_t sum = low + high + (uint32_t)last + (last >> 32);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ntohs((uint16_t)sum);
}
