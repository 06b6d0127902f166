// SPDX-License-Identifier: Apache-2.0
// Little-endian fields of files and of guest structures, at any alignment.
#ifndef CICADA_BOOT_LE_H
#define CICADA_BOOT_LE_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "boot/ is written for little-endian hosts"
#endif

static inline uint16_t le16_get(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t le32_get(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t le64_get(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void le16_put(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof(v));
}
static inline void le32_put(uint8_t *p, uint32_t v) {
    memcpy(p, &v, sizeof(v));
}
static inline void le64_put(uint8_t *p, uint64_t v) {
    memcpy(p, &v, sizeof(v));
}

#endif
