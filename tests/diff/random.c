// SPDX-License-Identifier: Apache-2.0
// Deterministic random numbers, and random register contents that favour the values where instructions go wrong.
#include <string.h>

#include "tests/diff/diff.h"

static uint64_t state = 1;

uint64_t random_u64(void) { // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The seed goes through the mixer: neighbouring seeds must not be neighbouring places of one sequence.
void random_seed(uint64_t seed) {
    state = seed;
    state = random_u64();
}

unsigned random_below(unsigned n) {
    return (unsigned)((random_u64() >> 32) * n >> 32);
}

bool random_chance(unsigned percent) {
    return random_below(100) < percent;
}

uint64_t random_value(void) {
    static const uint64_t edges[] = {0,
                                     1,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     ~0ull,
                                     ~0ull - 1,
                                     0xffffffff80000000,
                                     0xffffffff7fffffff};
    uint64_t r = random_u64();
    switch (random_below(8)) {
    case 0: return edges[random_below(sizeof(edges) / sizeof(*edges))];
    case 1: return r & 0xff;
    case 2: return (uint64_t)(int64_t)(int8_t)r;
    case 3: return r & 0xffffffff;
    case 4: return 1ull << (r & 63);
    case 5: return r >> (r & 63);
    default: return r;
    }
}

// ---- vectors ----

static uint32_t random_float(void) {
    static const uint32_t edges[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                     0x7fc00000, 0xffc00001, 0x7f800001, 0x00000001, 0x807fffff, 0x00800000,
                                     0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000, 0x5f000000, 0x33800000};
    return random_chance(60) ? edges[random_below(sizeof(edges) / sizeof(*edges))] : (uint32_t)random_u64();
}

static uint64_t random_double(void) {
    static const uint64_t edges[] = {0,
                                     0x8000000000000000,
                                     0x3ff0000000000000,
                                     0xbff0000000000000,
                                     0x7ff0000000000000,
                                     0xfff0000000000000,
                                     0x7ff8000000000000,
                                     0xfff8000000000001,
                                     0x7ff0000000000001,
                                     1,
                                     0x800fffffffffffff,
                                     0x0010000000000000,
                                     0x7fefffffffffffff,
                                     0x41e0000000000000,
                                     0xc1e0000000200000,
                                     0x3fe0000000000000,
                                     0x43e0000000000000,
                                     0x47efffffe0000000};
    return random_chance(60) ? edges[random_below(sizeof(edges) / sizeof(*edges))] : random_u64();
}

void random_vector(uint8_t *p, unsigned len) {
    unsigned kind = random_below(5);
    for (unsigned i = 0; i + 4 <= len; i += 4) {
        uint64_t v = kind == 0   ? random_float()
                     : kind == 1 ? random_double()
                     : kind == 2 ? random_value()
                                 : random_u64();
        if (kind == 4)
            v = (random_u64() & 1) ? ~0ull : 0;
        if (kind == 1 && i + 8 <= len) {
            memcpy(p + i, &v, 8);
            i += 4;
        } else {
            memcpy(p + i, &v, 4);
        }
    }
}

// ---- the XSAVE area (SDM vol. 1 13.4) ----

static void random_st(uint8_t *p) {
    static const uint16_t exponents[] = {0, 1, 0x3fff, 0x3ffe, 0x4000, 0x401e, 0x403e, 0x403f, 0x7ffe, 0x7fff, 0x3fbf};
    static const uint64_t mantissas[] = {0,
                                         0x8000000000000000,
                                         0xc000000000000000,
                                         0xffffffffffffffff,
                                         1,
                                         0x4000000000000000,
                                         0x8000000000000001,
                                         0xc90fdaa22168c235,
                                         0xa000000000000000};
    uint64_t m = random_chance(70) ? mantissas[random_below(9)] : random_u64() | 1ull << 63;
    unsigned e = random_chance(70) ? exponents[random_below(11)] : random_below(0x8000);
    uint16_t se = (uint16_t)(e | (random_u64() & 1) << 15);
    memcpy(p, &m, 8);
    memcpy(p + 8, &se, 2);
}

static void random_x87(uint8_t *a, bool mask_all) {
    uint16_t fcw = 0x037f, fsw = (uint16_t)(random_below(8) << 11), mask;
    uint8_t tags = (uint8_t)(random_chance(30) ? 0xff : random_chance(20) ? 0 : random_u64());
    if (random_chance(30))
        fcw = (uint16_t)(0x40 | 0x3f | random_below(4) << 10 | (random_chance(50) ? 3 : random_below(2) * 2) << 8);
    if (!mask_all && random_chance(15))
        fcw &= (uint16_t) ~(random_u64() & 0x3f);
    if (random_chance(20))
        fsw |= (uint16_t)(random_u64() & 0x473f); // condition codes and exception flags
    if (random_chance(90))
        fsw &= (uint16_t) ~(~fcw & 0x3f); // seldom an exception that already waits
    mask = fcw & 0x3f;
    if (fsw & 0x3f & ~mask)
        fsw |= 0x8080;
    memcpy(a, &fcw, 2);
    memcpy(a + 2, &fsw, 2);
    a[4] = tags;
    for (unsigned i = 0; i < 8; i++)
        random_st(a + 32 + 16 * i);
}

void random_xsave(uint8_t *a, bool mask_all) {
    uint32_t mxcsr = 0x1f80;
    uint64_t bv = 7;
    memset(a, 0, X86_XSAVE_SIZE);
    random_x87(a, mask_all);
    if (random_chance(30))
        mxcsr |= (uint32_t)(random_u64() & 0xe07f); // rounding, FTZ, DAZ, flags
    if (!mask_all && random_chance(10))
        mxcsr &= ~(uint32_t)(random_u64() & 0x1f80);
    memcpy(a + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 16; i++) {
        random_vector(a + 160 + 16 * i, 16);
        random_vector(a + 576 + 16 * i, 16);
    }
    memcpy(a + 512, &bv, 8);
}
