// SPDX-License-Identifier: Apache-2.0
// The x87 stack through long double: arithmetic, its transcendental instructions, and conversions to decimal.
#include "bench.h"
#include <string.h>

static uint64_t bits(long double d) {
    uint64_t u; // the significand; the exponent follows from it in these computations
    memcpy(&u, &d, sizeof(u));
    return u;
}

static uint64_t polynomial(uint64_t work) {
    long double x = 0.3L, acc = 0;
    for (uint64_t i = 0; i < work; i++) {
        acc = acc * 0.5L + ((((x * 1.25L - 0.75L) * x + 2.5L) * x - 1.125L) * x + 0.5L) / (x + 2);
        x = x > 4 ? x - 3.875L : x + 0.0625L;
    }
    return bits(acc);
}

// FSIN, FCOS, FPATAN and F2XM1 are microcode on the CPU: exact to its manner, so only a CPU of the same maker agrees.
static uint64_t transcendental(uint64_t work) {
    long double x = 0.3L, acc = 0;
    for (uint64_t i = 0; i < work; i++) {
        long double s, c, r, two;
        __asm__("fsincos" : "=t"(c), "=u"(s) : "0"(x));
        __asm__("fpatan" : "=t"(r) : "0"(c), "u"(s) : "st(1)");
        __asm__("f2xm1" : "=t"(two) : "0"(c * 0.5L));
        acc = acc * 0.5L + s + r * 0.25L + two;
        x = x > 3 ? x - 2.75L : x + 0.0117L;
    }
    return bits(acc);
}

static uint64_t linear(uint64_t work) {
    enum { N = 24 };
    static long double m[N][N + 1];
    uint64_t sum = 0;
    for (uint64_t turn = 0; turn < work; turn++) {
        uint64_t state = 1234 + turn;
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j <= N; j++)
                m[i][j] = (long double)(bench_random(&state) % 1000) + (i == j ? 10000 : 1);
        for (unsigned k = 0; k < N; k++)
            for (unsigned i = k + 1; i < N; i++) {
                long double f = m[i][k] / m[k][k];
                for (unsigned j = k; j <= N; j++)
                    m[i][j] -= f * m[k][j];
            }
        sum = bench_mix(sum, bits(m[N - 1][N] / m[N - 1][N - 1]));
    }
    return sum;
}

const struct bench_case bench_x87[] = {
    {"x87-polynomial", polynomial}, {"x87-transcendental", transcendental}, {"x87-linear", linear}, {0}};
