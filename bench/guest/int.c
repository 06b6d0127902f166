// SPDX-License-Identifier: Apache-2.0
// Integer loops as compilers make them: branches, loads and stores, flags, shifts, division, an indirect call in a
// loop.
#include "bench.h"
#include <stdlib.h>
#include <string.h>

// A scanner over text: what a lexer does, a jump table or compare tree per byte.
static uint64_t state_machine(uint64_t work) {
    enum { BLANK, WORD, NUMBER, COMMENT } state = BLANK;
    static char text[1 << 16];
    uint64_t count[4] = {0}, sum = 0, value = 0;
    bench_fill_text(text, sizeof(text), 7);
    for (uint64_t turn = 0; turn < work; turn++)
        for (unsigned i = 0; i < sizeof(text); i++) {
            unsigned char c = text[i] ^ (turn & 1);
            switch (state) {
            case BLANK:
                if (c >= 'a' && c <= 'z')
                    state = WORD;
                else if (c >= '0' && c <= '9')
                    state = NUMBER, value = c - '0';
                else if (c == '!')
                    state = COMMENT;
                break;
            case WORD:
                if (c == ' ' || c == '!' || c == '\n')
                    state = BLANK, count[WORD]++;
                break;
            case NUMBER:
                if (c >= '0' && c <= '9')
                    value = value * 10 + c - '0';
                else
                    state = c == ' ' ? BLANK : WORD, sum += value, count[NUMBER]++;
                break;
            case COMMENT:
                if (c == '\n' || c == '\v')
                    state = BLANK, count[COMMENT]++;
                break;
            }
        }
    return bench_mix(bench_mix(bench_mix(sum, count[WORD]), count[NUMBER]), count[COMMENT]);
}

struct item {
    struct item *next;
    uint64_t key;
};

// Links, reverses and merge-sorts a list again and again.
static struct item *merge(struct item *a, struct item *b) {
    struct item *head, **tail = &head;
    while (a && b) {
        struct item **low = a->key <= b->key ? &a : &b;
        *tail = *low;
        tail = &(*low)->next;
        *low = *tail;
    }
    *tail = a ? a : b;
    return head;
}

static struct item *sort(struct item *list) {
    struct item *slow = list, *fast = list;
    if (!list || !list->next)
        return list;
    while (fast->next && fast->next->next)
        slow = slow->next, fast = fast->next->next;
    fast = slow->next;
    slow->next = NULL;
    return merge(sort(list), sort(fast));
}

static uint64_t list(uint64_t work) {
    static struct item items[8192];
    uint64_t state = 99, sum = 0;
    for (uint64_t turn = 0; turn < work; turn++) {
        struct item *head = NULL;
        for (unsigned i = 0; i < 8192; i++) {
            items[i] = (struct item){head, bench_random(&state) >> 32};
            head = &items[i];
        }
        unsigned at = 0;
        for (struct item *i = sort(head); i; i = i->next)
            sum = bench_mix(sum, i->key + at++);
    }
    return sum;
}

static uint64_t matrix(uint64_t work) {
    enum { N = 96 };
    static int32_t a[N][N], b[N][N], c[N][N];
    uint64_t state = 5, sum = 0;
    for (unsigned i = 0; i < N * N; i++)
        a[i / N][i % N] = bench_random(&state) % 1000, b[i / N][i % N] = bench_random(&state) % 1000;
    for (uint64_t turn = 0; turn < work; turn++) {
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j < N; j++) {
                int32_t dot = 0;
                for (unsigned k = 0; k < N; k++)
                    dot += a[i][k] * b[k][j];
                c[i][j] = dot;
            }
        sum = bench_mix(sum, (uint32_t)c[turn % N][(turn * 7) % N]);
        a[turn % N][turn % 13] ^= 1;
    }
    return sum;
}

static uint64_t crc(uint64_t work) {
    static char text[1 << 14];
    uint32_t reg = ~0u;
    bench_fill_text(text, sizeof(text), 3);
    for (uint64_t turn = 0; turn < work; turn++)
        for (unsigned i = 0; i < sizeof(text); i++) {
            reg ^= (unsigned char)text[i];
            for (unsigned bit = 0; bit < 8; bit++)
                reg = reg & 1 ? reg >> 1 ^ 0xedb88320 : reg >> 1;
        }
    return reg;
}

static uint64_t division(uint64_t work) {
    uint64_t state = 11, sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        uint64_t a = bench_random(&state), b = bench_random(&state) >> (i & 31) | 1;
        sum += a / b + a % b;
        sum = bench_mix(sum, (uint32_t)a / ((uint32_t)b | 1));
        sum += (int64_t)a / (int16_t)(b | 3);
    }
    return sum;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t quicksort(uint64_t work) {
    static uint32_t data[1 << 15];
    uint64_t state = 17, sum = 0;
    for (uint64_t turn = 0; turn < work; turn++) {
        for (unsigned i = 0; i < 1 << 15; i++)
            data[i] = bench_random(&state);
        qsort(data, 1 << 15, sizeof(data[0]), compare);
        for (unsigned i = 0; i < 1 << 15; i += 61)
            sum = bench_mix(sum, data[i]);
    }
    return sum;
}

static uint64_t sieve(uint64_t work) {
    enum { N = 1 << 18 };
    static uint8_t composite[N];
    uint64_t sum = 0;
    for (uint64_t turn = 0; turn < work; turn++) {
        memset(composite, 0, N);
        for (unsigned i = 2; i * i < N; i++)
            if (!composite[i])
                for (unsigned j = i * i + (turn & 1) * i; j < N; j += i)
                    composite[j] = 1;
        for (unsigned i = 2; i < N; i++)
            sum += composite[i] ? 0 : i;
    }
    return sum;
}

// Open addressing: multiply, shift, compare, a data-dependent branch, as in compilers and databases.
static uint64_t hash(uint64_t work) {
    enum { BITS = 14, N = 1 << BITS };
    static struct { uint64_t key, count; } slots[N];
    uint64_t state = 23, sum = 0;
    memset(slots, 0, sizeof(slots));
    for (uint64_t i = 0; i < work; i++) {
        uint64_t key = bench_random(&state) % 12000 + 1, at = key * 0x9e3779b97f4a7c15 >> (64 - BITS);
        while (slots[at].key && slots[at].key != key)
            at = (at + 1) % N;
        slots[at].key = key;
        sum += ++slots[at].count * at;
    }
    return sum;
}

const struct bench_case bench_int[] = {
    {"state-machine", state_machine},
    {"list", list},
    {"matrix", matrix},
    {"crc", crc},
    {"division", division},
    {"qsort", quicksort},
    {"sieve", sieve},
    {"hash", hash},
    {0},
};
