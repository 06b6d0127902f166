// SPDX-License-Identifier: Apache-2.0
// Memory: dependent loads over sets that fit each cache level and none, over many pages, random updates, copies short
// and long, the REP string instructions, and the C library's string functions.
#include "bench.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *area(uint64_t len) {
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_need(p != MAP_FAILED, "memory for the case");
    return p;
}

// A cycle through `nodes` (a power of two) places `stride` bytes apart in an order that no prefetcher guesses: a linear
// congruential sequence of full period.
static uint64_t chase(uint64_t work, uint64_t nodes, uint64_t stride) {
    char *base = area(nodes * stride);
    uint64_t multiplier = 0x5851f42d4c957f2d, increment = 0x14057b7ef767814f | 1;
    for (uint64_t i = 0; i < nodes; i++) {
        uint64_t next = (i * multiplier + increment) & (nodes - 1);
        // Spread over the lines of a page, or every node would fall into the same set of the cache.
        uint64_t from = i * stride + (stride > 64 ? i * 64 % stride : 0);
        uint64_t to = next * stride + (stride > 64 ? next * 64 % stride : 0);
        *(char **)(base + from) = base + to;
    }
    char *at = base;
    for (uint64_t i = 0; i < work; i++)
        at = *(char **)at;
    uint64_t sum = (uint64_t)(at - base);
    munmap(base, nodes * stride);
    return sum;
}
static uint64_t chase_l1(uint64_t work) {
    return chase(work, 256, 64);
}
static uint64_t chase_l2(uint64_t work) {
    return chase(work, 1 << 13, 64);
}
static uint64_t chase_l3(uint64_t work) {
    return chase(work, 1 << 18, 64);
}
static uint64_t chase_dram(uint64_t work) {
    return chase(work, 1 << 20, 64);
}
static uint64_t chase_pages(uint64_t work) {
    return chase(work, 1 << 14, 4096);
}

static uint64_t random_update(uint64_t work) {
    enum { WORDS = 1 << 22 };
    uint64_t *table = area(WORDS * sizeof(uint64_t)), state = 1, sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        uint64_t r = bench_random(&state);
        table[r % WORDS] ^= r;
    }
    for (uint64_t i = 0; i < WORDS; i += 1021)
        sum = bench_mix(sum, table[i]);
    munmap(table, WORDS * sizeof(uint64_t));
    return sum;
}

// A pass over 16 MiB, a line at a time, summing: what reading an array of structures costs.
static uint64_t sequential(uint64_t work) {
    enum { WORDS = 1 << 21 };
    uint64_t *data = area(WORDS * sizeof(uint64_t)), sum = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        data[i] = i * 3;
    for (uint64_t turn = 0; turn < work; turn++)
        for (uint64_t i = 0; i < WORDS; i += 4) {
            sum += data[i] ^ turn;
            data[i + 1] = sum;
        }
    munmap(data, WORDS * sizeof(uint64_t));
    return sum;
}

static uint64_t copy(uint64_t work, uint64_t len, void *(*how)(void *, const void *, size_t)) {
    unsigned char *from = area(len + 64), *to = area(len + 64);
    uint64_t sum = 0;
    bench_fill_text((char *)from, len + 64, 5);
    for (uint64_t i = 0; i < work; i++) {
        uint64_t shift = i * 7 % 64;
        how(to + shift, from + (i & 31), len - shift);
        sum += to[len / 2] + to[shift];
        from[i % len]++;
    }
    for (uint64_t i = 0; i < len; i += 127)
        sum = bench_mix(sum, to[i]);
    munmap(from, len + 64);
    munmap(to, len + 64);
    return sum;
}
static uint64_t memcpy_small(uint64_t work) {
    return copy(work, 200, memcpy);
}
static uint64_t memcpy_page(uint64_t work) {
    return copy(work, 4096, memcpy);
}
static uint64_t memcpy_large(uint64_t work) {
    return copy(work, 8 << 20, memcpy);
}

static void *rep_movsb(void *to, const void *from, size_t len) {
    void *ret = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
    return ret;
}
static void *rep_movsq(void *to, const void *from, size_t len) {
    void *ret = to;
    len /= 8;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
    return ret;
}
static uint64_t rep_movs_short(uint64_t work) {
    return copy(work, 96, rep_movsb);
}
static uint64_t rep_movs_page(uint64_t work) {
    return copy(work, 4096, rep_movsq);
}
static uint64_t rep_movs_long(uint64_t work) {
    return copy(work, 1 << 20, rep_movsb);
}

static uint64_t rep_stos(uint64_t work) {
    enum { LEN = 64 << 10 };
    unsigned char *buf = area(LEN);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        void *to = buf + i % 128;
        uint64_t count = LEN / 8 - 16 - i % 8, value = i * 0x0101010101010101;
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        sum += buf[i % LEN] + buf[LEN - 200 + i % 64];
    }
    munmap(buf, LEN);
    return sum;
}

static uint64_t string_functions(uint64_t work) {
    enum { LEN = 4096 };
    char *text = area(LEN + 1);
    uint64_t sum = 0;
    bench_fill_text(text, LEN, 8);
    for (uint64_t i = 0; i < work; i++) {
        char *at = text + i % 61;
        sum += strlen(at);
        sum += (uint64_t)((char *)memchr(at, '\n', LEN - 61) - text);
        sum += strncmp(at, text, 300) < 0;
        sum += (uint64_t)(strstr(at, "the q") ? 1 : 0);
        at[17] ^= 4;
    }
    munmap(text, LEN + 1);
    return sum;
}

static uint64_t string_length(uint64_t work) {
    enum { LEN = 1024 };
    char *text = area(LEN + 64);
    uint64_t sum = 0;
    memset(text, 'x', LEN);
    for (uint64_t i = 0; i < work; i++) {
        char *at = text + i % 64;
        BENCH_HIDE(at);
        sum += strlen(at);
    }
    munmap(text, LEN + 64);
    return sum;
}

const struct bench_case bench_mem[] = {
    {"chase-l1", chase_l1},
    {"chase-l2", chase_l2},
    {"chase-l3", chase_l3},
    {"chase-dram", chase_dram},
    {"chase-pages", chase_pages},
    {"random-update", random_update},
    {"sequential", sequential},
    {"memcpy-200", memcpy_small},
    {"memcpy-4k", memcpy_page},
    {"memcpy-8m", memcpy_large},
    {"rep-movs-96", rep_movs_short},
    {"rep-movs-4k", rep_movs_page},
    {"rep-movs-1m", rep_movs_long},
    {"rep-stos", rep_stos},
    {"strlen", string_length},
    {"strings", string_functions},
    {0},
};
