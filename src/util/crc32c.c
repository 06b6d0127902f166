// SPDX-License-Identifier: Apache-2.0
// CRC-32C by the instruction of SSE4.2 where the host has it, else by a table of 256 entries made at start.
#include "util/crc32c.h"

#include <nmmintrin.h>
#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u // reflected

static uint32_t table[256];
static bool has_instruction;

__attribute__((constructor)) static void choose(void) {
    __builtin_cpu_init();
    has_instruction = __builtin_cpu_supports("sse4.2");
    for (uint32_t i = 0; !has_instruction && i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v & 1 ? v >> 1 ^ POLYNOMIAL : v >> 1;
        table[i] = v;
    }
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t len) {
    for (; len; len--)
        crc = table[(crc ^ *p++) & 0xff] ^ crc >> 8;
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t len) {
    uint64_t wide = crc, word;
    for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; len; len--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

uint32_t crc32c(uint32_t crc, const void *p, size_t len) {
    crc = ~crc;
    return ~(has_instruction ? by_instruction(crc, p, len) : by_table(crc, p, len));
}
