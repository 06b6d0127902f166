// SPDX-License-Identifier: Apache-2.0
// Clusters to be copied; see the header.
#include "state/block_log.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/image_copy.h"

#define BITS (8 * sizeof(unsigned long))

static uint64_t words(const struct block_log *l) {
    return (l->count + BITS - 1) / BITS;
}

// ---- life ----

int block_log_create(struct block_log *l, struct block_backend *backend) {
    *l = (struct block_log){.backend = backend, .count = (backend->size + BLOCK_CLUSTER - 1) / BLOCK_CLUSTER};
    l->todo = calloc(words(l), sizeof(*l->todo));
    l->written = calloc(words(l), sizeof(*l->written));
    if (l->todo && l->written)
        return 0;
    block_log_destroy(l);
    return -ENOMEM;
}

void block_log_destroy(struct block_log *l) {
    free(l->todo);
    free(l->written);
    *l = (struct block_log){0};
}

// ---- listening ----

static void mark(struct block_log *l, const struct block_req *r) {
    if (r->op == BLOCK_READ || r->op == BLOCK_FLUSH || r->bytes == 0)
        return;
    uint64_t last = (r->offset + r->bytes - 1) / BLOCK_CLUSTER;
    for (uint64_t i = r->offset / BLOCK_CLUSTER; i <= last && i < l->count; i++)
        __atomic_fetch_or(&l->written[i / BITS], 1ul << (i % BITS), __ATOMIC_RELAXED);
}

// In place of the device's: any thread.
static void on_done(void *ctx, struct block_req *list) {
    struct block_log *l = ctx;
    for (const struct block_req *r = list; r; r = r->next)
        mark(l, r);
    l->done(l->done_ctx, list);
}

// With devices quiesced nobody calls done.
void block_log_listen(struct block_log *l, bool on) {
    struct block_backend *b = l->backend;
    if (on) {
        l->done = b->done;
        l->done_ctx = b->done_ctx;
    }
    b->done = on ? on_done : l->done;
    b->done_ctx = on ? l : l->done_ctx;
}

// ---- the list ----

static void add(struct block_log *l, uint64_t from, uint64_t to) {
    for (uint64_t i = from / BLOCK_CLUSTER; i < l->count && i * BLOCK_CLUSTER < to; i++)
        l->todo[i / BITS] |= 1ul << (i % BITS);
}

static void add_image(struct block_log *l) {
    off_t size = (off_t)l->backend->size, at = 0;
    while (at < size) {
        off_t data = lseek(l->backend->fd, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return;
        off_t hole = data < 0 ? -1 : lseek(l->backend->fd, data, SEEK_HOLE);
        if (hole < 0) { // a file or a device that knows no holes
            data = at;
            hole = size;
        }
        add(l, (uint64_t)data, (uint64_t)hole);
        at = hole;
    }
}

void block_log_add_all(struct block_log *l, bool image) {
    const struct block_backend_ops *ops = l->backend->ops;
    if (image)
        add_image(l);
    for (uint64_t i = 0; ops->own && i < l->count; i++)
        if (ops->own(l->backend, i * BLOCK_CLUSTER))
            l->todo[i / BITS] |= 1ul << (i % BITS);
}

void block_log_sync(struct block_log *l) {
    for (uint64_t w = 0; w < words(l); w++)
        l->todo[w] |= __atomic_exchange_n(&l->written[w], 0ul, __ATOMIC_RELAXED);
}

uint64_t block_log_left(const struct block_log *l) {
    uint64_t n = 0;
    for (uint64_t w = 0; w < words(l); w++)
        n += (uint64_t)BLOCK_CLUSTER * (unsigned)__builtin_popcountl(l->todo[w]);
    return n;
}

bool block_log_take(struct block_log *l, uint64_t from, uint64_t *cluster) {
    for (uint64_t i = from; i < l->count; i++) {
        unsigned long word = l->todo[i / BITS] >> (i % BITS);
        if (word == 0) {
            i |= BITS - 1; // the loop goes to the next word
            continue;
        }
        i += (unsigned)__builtin_ctzl(word);
        l->todo[i / BITS] &= ~(1ul << (i % BITS));
        *cluster = i;
        return true;
    }
    return false;
}

uint64_t block_log_bytes(const struct block_log *l, uint64_t cluster) {
    uint64_t left = l->backend->size - cluster * BLOCK_CLUSTER;
    return left < BLOCK_CLUSTER ? left : BLOCK_CLUSTER;
}

int block_log_read(const struct block_log *l, uint64_t cluster, uint8_t *buf) {
    return block_peek(l->backend, buf, block_log_bytes(l, cluster), cluster * BLOCK_CLUSTER);
}
