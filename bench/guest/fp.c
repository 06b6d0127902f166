// SPDX-License-Identifier: Apache-2.0
// Scalar double arithmetic as compilers make it: n bodies, the Mandelbrot set, a Fourier transform, the mathematical
// library's functions, and conversions.
#include "bench.h"
#include <math.h>
#include <string.h>

static uint64_t bits(double d) {
    uint64_t u;
    memcpy(&u, &d, sizeof(u));
    return u;
}

struct body {
    double x[3], v[3], mass;
};

static void pull(struct body *a, struct body *b, double dt) {
    double d[3], dist2 = 0.01;
    for (unsigned k = 0; k < 3; k++) {
        d[k] = a->x[k] - b->x[k];
        dist2 += d[k] * d[k];
    }
    double mag = dt / (dist2 * sqrt(dist2));
    for (unsigned k = 0; k < 3; k++) {
        a->v[k] -= d[k] * b->mass * mag;
        b->v[k] += d[k] * a->mass * mag;
    }
}

static uint64_t nbody(uint64_t work) {
    struct body bodies[5];
    uint64_t state = 77, sum = 0;
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned k = 0; k < 3; k++) {
            bodies[i].x[k] = (double)(bench_random(&state) % 2000) / 100 - 10;
            bodies[i].v[k] = (double)(bench_random(&state) % 200) / 1000 - 0.1;
        }
        bodies[i].mass = 1.0 + i;
    }
    for (uint64_t step = 0; step < work; step++) {
        for (unsigned i = 0; i < 5; i++)
            for (unsigned j = i + 1; j < 5; j++)
                pull(&bodies[i], &bodies[j], 0.001);
        for (unsigned i = 0; i < 5; i++)
            for (unsigned k = 0; k < 3; k++)
                bodies[i].x[k] += 0.001 * bodies[i].v[k];
    }
    for (unsigned i = 0; i < 5; i++)
        sum = bench_mix(sum, bits(bodies[i].x[0]));
    return sum;
}

static uint64_t mandelbrot(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t row = 0; row < work; row++)
        for (unsigned col = 0; col < 256; col++) {
            double cr = col / 100.0 - 2, ci = (double)(row % 256) / 100 - 1.28, r = 0, i = 0;
            unsigned n = 0;
            while (n < 200 && r * r + i * i < 4) {
                double t = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = t;
                n++;
            }
            sum = bench_mix(sum, n);
        }
    return sum;
}

// Radix-2, in place, with its own twiddle factors.
static void transform(double *re, double *im, unsigned n, const double *cosine, const double *sine) {
    for (unsigned i = 1, j = 0; i < n; i++) {
        unsigned bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            double t = re[i];
            re[i] = re[j], re[j] = t;
            t = im[i];
            im[i] = im[j], im[j] = t;
        }
    }
    for (unsigned len = 2; len <= n; len <<= 1)
        for (unsigned at = 0; at < n; at += len)
            for (unsigned k = 0; k < len / 2; k++) {
                unsigned a = at + k, b = a + len / 2, w = k * (n / len);
                double tr = re[b] * cosine[w] - im[b] * sine[w], ti = re[b] * sine[w] + im[b] * cosine[w];
                re[b] = re[a] - tr, im[b] = im[a] - ti;
                re[a] += tr, im[a] += ti;
            }
}

static uint64_t fourier(uint64_t work) {
    enum { N = 1024 };
    static double re[N], im[N], cosine[N], sine[N];
    uint64_t sum = 0;
    for (unsigned i = 0; i < N; i++)
        cosine[i] = cos(i * 2 * M_PI / N), sine[i] = sin(i * 2 * M_PI / N);
    for (uint64_t turn = 0; turn < work; turn++) {
        for (unsigned i = 0; i < N; i++)
            re[i] = (double)((i * 7 + turn) % 31), im[i] = 0;
        transform(re, im, N, cosine, sine);
        sum = bench_mix(sum, bits(re[turn % N]));
    }
    return sum;
}

static uint64_t libm(uint64_t work) {
    double x = 0.5, acc = 0;
    for (uint64_t i = 0; i < work; i++) {
        x += 0.37;
        acc += sin(x) * cos(x) + exp(-x * 1e-5) + log(x) + pow(x, 0.3);
    }
    return bits(acc);
}

static uint64_t convert(uint64_t work) {
    uint64_t state = 31, sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        uint64_t r = bench_random(&state);
        double d = (double)(int64_t)r * 1e-6;
        float f = (float)d;
        sum += (uint64_t)(int64_t)d + (uint32_t)(int32_t)(f * 1e-9f) + (d < 1e6) + bits((double)f);
    }
    return sum;
}

const struct bench_case bench_fp[] = {
    {"nbody", nbody}, {"mandelbrot", mandelbrot}, {"fourier", fourier}, {"libm", libm}, {"convert", convert}, {0},
};
