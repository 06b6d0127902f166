// SPDX-License-Identifier: Apache-2.0
// Little-endian reader and writer of component state.
// Invariants: a writer after an error writes nothing more; a reader after an overrun stays at its end and gives
// zeroes, so a truncated or hostile snapshot can never make a load function see uninitialised bytes.
#include "core/stateio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/types.h"

void state_writer_free(struct state_writer *w) {
    free(w->buf);
    *w = (struct state_writer){0};
}

int state_writer_error(const struct state_writer *w) {
    return w->error;
}

// Room for n more bytes, or NULL with the error remembered.
static uint8_t *writer_reserve(struct state_writer *w, size_t n) {
    size_t need, cap = w->cap ? w->cap : 256;

    if (w->error)
        return NULL;
    if (__builtin_add_overflow(w->len, n, &need) || need > SIZE_MAX / 2)
        goto fail;
    if (need > w->cap) {
        while (cap < need)
            cap *= 2;
        uint8_t *buf = realloc(w->buf, cap);
        if (!buf)
            goto fail;
        w->buf = buf;
        w->cap = cap;
    }
    uint8_t *p = w->buf + w->len;
    w->len = need;
    return p;

fail:
    w->error = -ENOMEM;
    return NULL;
}

static void put_le(struct state_writer *w, uint64_t v, size_t n) {
    uint8_t *p = writer_reserve(w, n);

    if (!p)
        return;
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

void state_put_u8(struct state_writer *w, uint8_t v) {
    put_le(w, v, 1);
}
void state_put_u16(struct state_writer *w, uint16_t v) {
    put_le(w, v, 2);
}
void state_put_u32(struct state_writer *w, uint32_t v) {
    put_le(w, v, 4);
}
void state_put_u64(struct state_writer *w, uint64_t v) {
    put_le(w, v, 8);
}

void state_put_bytes(struct state_writer *w, const void *p, size_t n) {
    if (n == 0)
        return;
    uint8_t *dst = writer_reserve(w, n);
    if (dst)
        memcpy(dst, p, n);
}

// The next n bytes, or NULL with the error remembered.
static const uint8_t *reader_take(struct state_reader *r, size_t n) {
    if (r->error || r->pos > r->len || n > r->len - r->pos) {
        r->error = -EINVAL;
        r->pos = r->len;
        return NULL;
    }
    const uint8_t *p = r->buf + r->pos;
    r->pos += n;
    return p;
}

static uint64_t get_le(struct state_reader *r, size_t n) {
    const uint8_t *p = reader_take(r, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t state_get_u8(struct state_reader *r) {
    return (uint8_t)get_le(r, 1);
}
uint16_t state_get_u16(struct state_reader *r) {
    return (uint16_t)get_le(r, 2);
}
uint32_t state_get_u32(struct state_reader *r) {
    return (uint32_t)get_le(r, 4);
}
uint64_t state_get_u64(struct state_reader *r) {
    return get_le(r, 8);
}

void state_get_bytes(struct state_reader *r, void *p, size_t n) {
    if (n == 0)
        return;
    const uint8_t *src = reader_take(r, n);
    if (src)
        memcpy(p, src, n);
    else
        memset(p, 0, n);
}
