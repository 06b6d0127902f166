// SPDX-License-Identifier: Apache-2.0
// Vector code: matrix products with SSE2 and with AVX2 and FMA, the STREAM triad, integer vectors, byte shuffles.
#include "bench.h"
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

enum { N = 128 };
static float a[N][N] __attribute__((aligned(64))), b[N][N] __attribute__((aligned(64))),
    c[N][N] __attribute__((aligned(64)));

static void fill(void) {
    uint64_t state = 41;
    for (unsigned i = 0; i < N * N; i++) {
        a[i / N][i % N] = (float)(bench_random(&state) % 1000) / 512;
        b[i / N][i % N] = (float)(bench_random(&state) % 1000) / 512;
    }
}

static uint64_t result(uint64_t sum) {
    for (unsigned i = 0; i < N * N; i += 37) {
        uint32_t u;
        memcpy(&u, &c[i / N][i % N], sizeof(u));
        sum = bench_mix(sum, u);
    }
    return sum;
}

static uint64_t matrix_sse2(uint64_t work) {
    uint64_t sum = 0;
    fill();
    for (uint64_t turn = 0; turn < work; turn++) {
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j < N; j += 8) {
                __m128 x = _mm_setzero_ps(), y = x;
                for (unsigned k = 0; k < N; k++) {
                    __m128 f = _mm_set1_ps(a[i][k]);
                    x = _mm_add_ps(x, _mm_mul_ps(f, _mm_load_ps(&b[k][j])));
                    y = _mm_add_ps(y, _mm_mul_ps(f, _mm_load_ps(&b[k][j + 4])));
                }
                _mm_store_ps(&c[i][j], x);
                _mm_store_ps(&c[i][j + 4], y);
            }
        a[turn % N][turn % 11] += 0.5f;
        sum = result(sum);
    }
    return sum;
}

__attribute__((target("avx2,fma"))) static void product_avx2(void) {
    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < N; j += 32) {
            __m256 v[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
            for (unsigned k = 0; k < N; k++) {
                __m256 f = _mm256_broadcast_ss(&a[i][k]);
#pragma GCC unroll 4
                for (unsigned q = 0; q < 4; q++)
                    v[q] = _mm256_fmadd_ps(f, _mm256_load_ps(&b[k][j + q * 8]), v[q]);
            }
#pragma GCC unroll 4
            for (unsigned q = 0; q < 4; q++)
                _mm256_store_ps(&c[i][j + q * 8], v[q]);
        }
}

static uint64_t matrix_avx2(uint64_t work) {
    uint64_t sum = 0;
    fill();
    for (uint64_t turn = 0; turn < work; turn++) {
        product_avx2();
        a[turn % N][turn % 11] += 0.5f;
        sum = result(sum);
    }
    return sum;
}

__attribute__((target("avx2,fma"))) static void triad_avx2(double *x, const double *y, const double *z, unsigned n) {
    __m256d s = _mm256_set1_pd(1.0625);
    for (unsigned i = 0; i < n; i += 4)
        _mm256_store_pd(x + i, _mm256_fmadd_pd(s, _mm256_load_pd(z + i), _mm256_load_pd(y + i)));
}

static void triad_sse2(double *x, const double *y, const double *z, unsigned n) {
    __m128d s = _mm_set1_pd(1.0625);
    for (unsigned i = 0; i < n; i += 2)
        _mm_store_pd(x + i, _mm_add_pd(_mm_mul_pd(s, _mm_load_pd(z + i)), _mm_load_pd(y + i)));
}

// n doubles in each of three arrays; the arrays change roles so that the values keep changing.
static uint64_t triad(uint64_t work, unsigned n, void (*step)(double *, const double *, const double *, unsigned)) {
    double *array[3];
    uint64_t sum = 0;
    for (unsigned k = 0; k < 3; k++) {
        array[k] = aligned_alloc(64, n * sizeof(double));
        bench_need(array[k] != NULL, "memory for the triad");
        for (unsigned i = 0; i < n; i++)
            array[k][i] = (i % 17 + k) * 0.125;
    }
    for (uint64_t turn = 0; turn < work; turn++) {
        step(array[turn % 3], array[(turn + 1) % 3], array[(turn + 2) % 3], n);
        if (turn % 64 == 0) // keep the numbers from growing without end
            memset(array[(turn + 1) % 3], 0, n * sizeof(double));
    }
    for (unsigned i = 0; i < n; i += 31) {
        uint64_t u;
        memcpy(&u, &array[0][i], sizeof(u));
        sum = bench_mix(sum, u);
    }
    return sum;
}

static uint64_t triad_cached(uint64_t work) {
    return triad(work, 1024, triad_sse2);
}
static uint64_t triad_cached_avx2(uint64_t work) {
    return triad(work, 1024, triad_avx2);
}
static uint64_t triad_memory(uint64_t work) {
    return triad(work, 1 << 20, triad_avx2);
}

// Sums of absolute differences, saturation, compares, masks and shuffles, as in video and text code.
static uint64_t bytes_sse2(uint64_t work) {
    static uint8_t text[1 << 14] __attribute__((aligned(64)));
    uint64_t sum = 0;
    bench_fill_text((char *)text, sizeof(text), 9);
    for (uint64_t turn = 0; turn < work; turn++) {
        __m128i key = _mm_set1_epi8((char)('a' + turn % 26)), total = _mm_setzero_si128();
        for (unsigned i = 0; i + 32 <= sizeof(text); i += 16) {
            __m128i v = _mm_load_si128((const __m128i *)(text + i)),
                    w = _mm_loadu_si128((const __m128i *)(text + i + 3));
            sum += __builtin_popcount(_mm_movemask_epi8(_mm_cmpeq_epi8(v, key)));
            total = _mm_add_epi64(total, _mm_sad_epu8(v, w));
            total = _mm_xor_si128(total, _mm_unpacklo_epi8(_mm_subs_epu8(v, w), _mm_adds_epu8(v, w)));
        }
        sum = bench_mix(sum, (uint64_t)_mm_cvtsi128_si64(total));
    }
    return sum;
}

__attribute__((target("avx2"))) static uint64_t ints_avx2(uint64_t work) {
    static uint32_t data[1 << 12] __attribute__((aligned(64)));
    uint64_t state = 12, sum = 0;
    for (unsigned i = 0; i < 1 << 12; i++)
        data[i] = bench_random(&state);
    for (uint64_t turn = 0; turn < work; turn++) {
        __m256i total = _mm256_set1_epi32((int)turn);
        for (unsigned i = 0; i < 1 << 12; i += 8) {
            __m256i v = _mm256_load_si256((const __m256i *)(data + i));
            total = _mm256_add_epi32(_mm256_mullo_epi32(total, v), _mm256_srlv_epi32(v, _mm256_set1_epi32(3)));
            total = _mm256_xor_si256(total, _mm256_shuffle_epi32(v, 0x1b));
        }
        sum = bench_mix(sum, (uint64_t)_mm256_extract_epi64(total, 2));
    }
    return sum;
}

const struct bench_case bench_simd[] = {
    {"matrix-sse2", matrix_sse2},   {"matrix-avx2", matrix_avx2},
    {"triad-sse2", triad_cached},   {"triad-avx2", triad_cached_avx2},
    {"triad-memory", triad_memory}, {"bytes-sse2", bytes_sse2},
    {"ints-avx2", ints_avx2},       {0},
};
