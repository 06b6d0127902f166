// SPDX-License-Identifier: Apache-2.0
// SHA-256 in plain C after FIPS 180-4: rotates, additions and long chains of dependent 32-bit arithmetic. The constants
// are computed, from the roots of the first primes, as the standard defines them.
#include "bench.h"
#include <string.h>

static uint32_t constants[64];

static uint32_t ror(uint32_t x, unsigned n) {
    return x >> n | x << (32 - n);
}

// The first 32 bits of the fraction of the cube root (power 3) or square root (power 2) of p, by bisection in integers.
static uint32_t root_bits(unsigned p, unsigned power) {
    uint64_t low = 0, high = (uint64_t)32 << 32;
    while (high - low > 1) {
        uint64_t mid = low + (high - low) / 2;
        // mid is a fixed point number with 32 fractional bits; mid^power <= p compared without losing a bit.
        unsigned __int128 v = (unsigned __int128)mid * mid;
        int below;
        if (power == 2)
            below = v <= (unsigned __int128)p << 64;
        else
            below = (v >> 32) * mid < (unsigned __int128)p << 64;
        if (below)
            low = mid;
        else
            high = mid;
    }
    return (uint32_t)low;
}

static unsigned next_prime(unsigned p) {
    for (p++;; p++) {
        unsigned d = 2;
        while (d * d <= p && p % d)
            d++;
        if (d * d > p)
            return p;
    }
}

static void compress(uint32_t h[8], const uint8_t *block) {
    uint32_t w[64], s[8];
    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)block[i * 4] << 24 | block[i * 4 + 1] << 16 | block[i * 4 + 2] << 8 | block[i * 4 + 3];
    for (unsigned i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7] + (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof(s));
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                      constants[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t sha256(uint64_t work) {
    uint32_t h[8];
    uint8_t block[64];
    unsigned p = 1;
    for (unsigned i = 0; i < 64; i++) {
        p = next_prime(p);
        constants[i] = root_bits(p, 3);
        if (i < 8)
            h[i] = root_bits(p, 2);
    }
    bench_fill_text((char *)block, sizeof(block), 1);
    for (uint64_t i = 0; i < work; i++) {
        compress(h, block);
        block[i % 64] += 1;
    }
    return (uint64_t)h[0] << 32 | h[1];
}

const struct bench_case bench_sha256[] = {{"sha256", sha256}, {0}};
