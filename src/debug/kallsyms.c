// SPDX-License-Identifier: Apache-2.0
// The layout is that of scripts/kallsyms.c. The tables stand next to each other in .rodata, each aligned to 8:
//   before 6.4: offsets, relative_base, num_syms, names, markers, [seqs_of_names,] token_table, token_index
//   from then:  num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names
// The token table is found by the tokens of the digits, which always stand for themselves, and proved by its index; the
// others by going back and forth from there. A name is a length and that many tokens; a marker says where each 256th
// is.
//
// Invariants: everything lies in one piece of guest memory, [base, end); it is hostile, so every offset that is read
// is checked against it before it is followed, and each search is bounded.
#include "debug/kallsyms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS         256
#define TOKEN_MAX      64
#define GROUP          256 // names to a marker
#define SYMBOLS_MAX    (4u << 20)
#define CANDIDATES_MAX 64
#define SEARCH_BACK    (GROUP * 130) // bytes that the names behind the last marker may take
#define KERNEL_BASE    0xffffffff80000000ull
#define IOVS           8

struct kallsyms {
    const uint8_t *base, *end; // guest memory
    const uint8_t *tokens, *token_index;
    const uint8_t *names, *markers, *offsets;
    uint32_t count, marker_count;
    uint64_t relative_base;
    bool percpu; // negative offsets count from relative_base, others are addresses of their own
};

static uint16_t get16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static uint32_t get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static uint64_t get64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

// base is page aligned in host and guest alike.
static const uint8_t *align8(const uint8_t *p) {
    return p + (-(uintptr_t)p & 7);
}

static size_t room(const struct kallsyms *k, const uint8_t *p) {
    return p >= k->base && p <= k->end ? (size_t)(k->end - p) : 0;
}

// ---- tokens ----

// From the token '0' back to the first one.
static const uint8_t *tokens_start(const struct kallsyms *k, const uint8_t *p) {
    for (unsigned i = 0; i < '0'; i++) {
        if (p <= k->base || p[-1])
            return NULL;
        const uint8_t *q = p - 1;
        while (q > k->base && q[-1] && p - q <= TOKEN_MAX)
            q--;
        p = q;
    }
    return p;
}

// The index behind the table must give the place of each token.
static bool tokens_prove(struct kallsyms *k, const uint8_t *start) {
    uint16_t at[TOKENS];
    const uint8_t *p = start;
    for (unsigned i = 0; i < TOKENS; i++) {
        size_t len = strnlen((const char *)p, room(k, p) < TOKEN_MAX ? room(k, p) : TOKEN_MAX);
        if (len >= TOKEN_MAX || len >= room(k, p))
            return false;
        at[i] = (uint16_t)(p - start);
        p += len + 1;
    }
    p = align8(p);
    if (room(k, p) < sizeof(at) || memcmp(p, at, sizeof(at)) != 0)
        return false;
    k->tokens = start;
    k->token_index = p;
    return true;
}

// ---- names ----

// Length in tokens of the name at *p, which goes behind it; 0 where there is none. ULEB128 of two bytes from 6.1 on.
static unsigned name_length(const struct kallsyms *k, const uint8_t **p) {
    if (room(k, *p) < 2)
        return 0;
    unsigned len = *(*p)++;
    if (len & 0x80)
        len = (len & 0x7f) | (unsigned)*(*p)++ << 7;
    return len < room(k, *p) ? len : 0;
}

static const uint8_t *names_skip(const struct kallsyms *k, const uint8_t *p, unsigned n) {
    while (n--) {
        unsigned len = name_length(k, &p);
        if (!len)
            return NULL;
        p += len;
    }
    return p;
}

static bool names_fit(const struct kallsyms *k, const uint8_t *names) {
    uint32_t first = k->count < GROUP ? k->count : GROUP;
    const uint8_t *p = names_skip(k, names, first);
    return p && (k->marker_count < 2 || p == names + get32(k->markers + 4));
}

// The names end before the markers; their number stands before them.
static bool find_names(struct kallsyms *k) {
    uint32_t last = get32(k->markers + 4 * (k->marker_count - 1));
    if (last > (size_t)(k->markers - k->base))
        return false;
    const uint8_t *p = k->markers - last;
    p -= (uintptr_t)p & 7;
    for (unsigned back = 0; back <= SEARCH_BACK && p - k->base >= 16; back += 8, p -= 8) {
        k->count = get32(p - 8);
        if ((k->count + GROUP - 1) / GROUP == k->marker_count && !get32(p - 4) && names_fit(k, p)) {
            k->names = p;
            return true;
        }
    }
    return false;
}

// ---- markers ----

// Are these n markers? They grow from 0, by what a group of names takes.
static bool markers_at(struct kallsyms *k, const uint8_t *start, uint32_t n) {
    if (get32(start) != 0)
        return false;
    for (uint32_t i = 1; i < n; i++) {
        uint32_t step = get32(start + 4 * (size_t)i) - get32(start + 4 * (size_t)(i - 1));
        if (step < GROUP || step > SEARCH_BACK)
            return false;
    }
    k->markers = start;
    k->marker_count = n;
    return find_names(k);
}

// Markers that end at `end`, or 4 bytes before where that makes them even.
static bool markers_end(struct kallsyms *k, const uint8_t *end, uint32_t n) {
    size_t bytes = (4 * (size_t)n + 7) & ~(size_t)7;
    return (size_t)(end - k->base) > bytes && markers_at(k, end - bytes, n);
}

// Nothing tells how many there are: all numbers are tried, which takes one look each. Between them and the tokens there
// may be three bytes for each symbol, which then have to agree.
static bool find_markers(struct kallsyms *k) {
    const uint8_t *end = k->tokens - ((uintptr_t)k->tokens & 7);
    for (uint32_t n = 1; n <= SYMBOLS_MAX / GROUP; n++)
        if (markers_end(k, end, n))
            return true;
    for (uint32_t count = 1; count <= SYMBOLS_MAX; count++) {
        size_t seqs = (3 * (size_t)count + 7) & ~(size_t)7;
        if ((size_t)(end - k->base) <= seqs)
            return false;
        if (markers_end(k, end - seqs, (count + GROUP - 1) / GROUP))
            return true;
    }
    return false;
}

// ---- addresses ----

static uint64_t address(const struct kallsyms *k, uint32_t i) {
    uint32_t offset = get32(k->offsets + 4 * (size_t)i);
    if (!k->percpu)
        return k->relative_base + offset;
    return (int32_t)offset < 0 ? k->relative_base - 1 - (uint64_t)(int64_t)(int32_t)offset : offset;
}

static bool try_offsets(struct kallsyms *k, const uint8_t *offsets, const uint8_t *relative_base) {
    size_t bytes = 4 * (size_t)k->count;
    if (offsets < k->base || room(k, offsets) < bytes || room(k, relative_base) < 8 || relative_base < k->base)
        return false;
    k->offsets = offsets;
    k->relative_base = get64(relative_base);
    k->percpu = (int32_t)get32(offsets + bytes - 4) < 0;
    return k->relative_base >= KERNEL_BASE && address(k, k->count - 1) >= k->relative_base;
}

static bool find_offsets(struct kallsyms *k) {
    size_t bytes = (4 * (size_t)k->count + 7) & ~(size_t)7;
    const uint8_t *behind = align8(k->token_index + TOKENS * 2), *before = k->names - 16;
    if (room(k, behind) >= bytes + 8 && try_offsets(k, behind, behind + bytes))
        return true;
    return (size_t)(before - k->base) >= bytes && try_offsets(k, before - bytes, before);
}

// ---- the whole ----

static bool find_in(struct kallsyms *k, const uint8_t *base, size_t size) {
    static const char digits[] = "\0000\0001\0002\0003\0004\0005\0006\0007\0008\0009"; // with its final NUL
    k->base = base;
    k->end = base + size;
    const uint8_t *p = base;
    for (unsigned i = 0; i < CANDIDATES_MAX; i++, p++) {
        p = memmem(p, (size_t)(k->end - p), digits, sizeof(digits));
        if (!p)
            return false;
        const uint8_t *start = tokens_start(k, p + 1);
        if (start && tokens_prove(k, start) && find_markers(k) && find_offsets(k))
            return true;
    }
    return false;
}

int kallsyms_open(struct mem *mem, struct kallsyms **out) {
    const uint64_t low = 1 << 20; // below it there are holes, and no kernel
    struct iovec iov[IOVS];
    struct kallsyms *k = calloc(1, sizeof(*k));
    uint64_t end = mem_ram_below_4g(mem);
    if (!k)
        return -ENOMEM;
    int n = end > low ? mem_map(mem, GPA(low), end - low, MEM_READ, iov, IOVS) : 0;
    bool found = false;
    for (int i = 0; i < n && !found; i++)
        found = find_in(k, iov[i].iov_base, iov[i].iov_len);
    if (n > 0)
        mem_unmap(mem, GPA(low), end - low, false);
    if (!found) {
        free(k);
        return -ENOENT;
    }
    *out = k;
    return 0;
}

void kallsyms_close(struct kallsyms *k) {
    free(k);
}

// The last index whose address is not above addr.
static uint32_t index_of(const struct kallsyms *k, uint64_t addr) {
    uint32_t lo = 0, hi = k->count;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (address(k, mid) <= addr)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static void put_token(const struct kallsyms *k, uint8_t token, char *name, size_t *at) {
    const char *t = (const char *)k->tokens + get16(k->token_index + 2 * (size_t)token);
    for (; *t && *at < KALLSYMS_NAME_MAX - 1; t++)
        name[(*at)++] = *t > ' ' && *t < 127 && *t != ';' ? *t : '?';
}

bool kallsyms_name(const struct kallsyms *k, uint64_t addr, char name[KALLSYMS_NAME_MAX]) {
    if (addr < k->relative_base || addr > address(k, k->count - 1))
        return false;
    uint32_t i = index_of(k, addr), marker = get32(k->markers + 4 * (i / GROUP));
    if (marker >= room(k, k->names))
        return false;
    const uint8_t *p = names_skip(k, k->names + marker, i % GROUP);
    unsigned len = p ? name_length(k, &p) : 0;
    size_t at = 0;
    for (unsigned t = 0; t < len; t++)
        put_token(k, p[t], name, &at);
    name[at] = 0;
    memmove(name, name + 1, at ? at : 1); // the first letter is the type
    return at > 1;
}
