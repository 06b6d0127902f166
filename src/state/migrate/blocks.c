// SPDX-License-Identifier: Apache-2.0
// Rounds over the blocks that the target lacks; see the header.
#include "state/migrate/blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BITS  (8 * sizeof(unsigned long))
#define BLOCK ((uint64_t)64 << 10) // bytes

static uint64_t words(const struct blocks_disk *d) {
    return (d->count + BITS - 1) / BITS;
}

static uint64_t block_bytes(const struct blocks_disk *d, uint64_t block) {
    uint64_t left = d->backend->size - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

// ---- listening ----

static void mark(struct blocks_disk *d, const struct block_req *r) {
    if (r->op == BLOCK_READ || r->op == BLOCK_FLUSH || r->bytes == 0)
        return;
    for (uint64_t i = r->offset / BLOCK; i <= (r->offset + r->bytes - 1) / BLOCK && i < d->count; i++)
        __atomic_fetch_or(&d->log[i / BITS], 1ul << (i % BITS), __ATOMIC_RELAXED);
}

// In place of the device's: any thread.
static void on_done(void *ctx, struct block_req *list) {
    struct blocks_disk *d = ctx;
    for (const struct block_req *r = list; r; r = r->next)
        mark(d, r);
    d->done(d->done_ctx, list);
}

// With devices quiesced nobody calls done.
static void listen_to(struct blocks *b, bool on) {
    machine_pause(b->machine);
    for (unsigned i = 0; i < b->count; i++) {
        struct blocks_disk *d = &b->disks[i];
        if (d->backend && on) {
            d->done = d->backend->done;
            d->done_ctx = d->backend->done_ctx;
            d->backend->done = on_done;
            d->backend->done_ctx = d;
        } else if (d->backend) {
            d->backend->done = d->done;
            d->backend->done_ctx = d->done_ctx;
        }
    }
    machine_resume(b->machine);
    b->listening = on;
}

// ---- what is to be sent ----

static uint64_t bytes_todo(const struct blocks *b) {
    uint64_t n = 0;
    for (unsigned i = 0; i < b->count; i++)
        for (uint64_t w = 0; b->disks[i].backend && w < words(&b->disks[i]); w++)
            n += BLOCK * (unsigned)__builtin_popcountl(b->disks[i].todo[w]);
    return n;
}

// Holes are holes at the target, whose file is new.
static void add_data(struct blocks_disk *d) {
    off_t size = (off_t)d->backend->size, at = 0;
    while (at < size) {
        off_t data = lseek(d->backend->fd, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return;
        off_t hole = data < 0 ? -1 : lseek(d->backend->fd, data, SEEK_HOLE);
        if (hole < 0) { // a file or a device that knows no holes
            data = at;
            hole = size;
        }
        for (uint64_t i = (uint64_t)data / BLOCK; i < d->count && i * BLOCK < (uint64_t)hole; i++)
            d->todo[i / BITS] |= 1ul << (i % BITS);
        at = hole;
    }
}

static void begin_round(struct blocks *b) {
    b->disk = 0;
    b->block = 0;
    b->left = bytes_todo(b);
}

static int disk_init(struct blocks_disk *d, struct block_backend *backend, unsigned index, struct error *err) {
    if (backend->read_only)
        return 0;
    if (backend->fd < 0)
        return error_set(err, -EINVAL, "disk %u is no raw image, which copying needs", index);
    d->backend = backend;
    d->count = (backend->size + BLOCK - 1) / BLOCK;
    d->todo = calloc(words(d), sizeof(*d->todo));
    d->log = calloc(words(d), sizeof(*d->log));
    return d->todo && d->log ? 0 : error_set(err, -ENOMEM, "lists of blocks");
}

static void blocks_free(struct blocks *b) {
    for (unsigned i = 0; i < b->count; i++) {
        free(b->disks[i].todo);
        free(b->disks[i].log);
    }
    *b = (struct blocks){0};
}

int blocks_begin(struct blocks *b, struct machine *m, struct block_backend *const *disks, unsigned count,
                 struct error *err) {
    *b = (struct blocks){.machine = m};
    int ret = count > BLOCKS_MAX_DISKS ? error_set(err, -EINVAL, "too many disks to copy") : 0;
    for (unsigned i = 0; ret == 0 && i < count; i++)
        ret = disk_init(&b->disks[b->count++], disks[i], i, err);
    if (ret) {
        blocks_free(b);
        return ret;
    }
    listen_to(b, true);
    for (unsigned i = 0; i < b->count; i++)
        if (b->disks[i].backend)
            add_data(&b->disks[i]);
    begin_round(b);
    return 0;
}

void blocks_end(struct blocks *b) {
    if (b->listening)
        listen_to(b, false);
    blocks_free(b);
}

void blocks_sync(struct blocks *b) {
    for (unsigned i = 0; i < b->count; i++)
        for (uint64_t w = 0; b->disks[i].backend && w < words(&b->disks[i]); w++)
            b->disks[i].todo[w] |= __atomic_exchange_n(&b->disks[i].log[w], 0ul, __ATOMIC_RELAXED);
    begin_round(b);
}

// ---- sending ----

static bool is_zero(const uint8_t *p, uint64_t n) {
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

// The number of bytes read, which is less at the end of a file that was cut.
static int read_block(int fd, uint8_t *buf, uint64_t n, uint64_t offset) {
    for (uint64_t done = 0; done < n;) {
        ssize_t got = pread(fd, buf + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        done += (uint64_t)got;
    }
    return 0;
}

static int put_block(struct blocks *b, struct wire *w, struct error *err) {
    static uint8_t buf[BLOCK]; // loop thread
    const struct blocks_disk *d = &b->disks[b->disk];
    uint64_t n = block_bytes(d, b->block), offset = b->block * BLOCK;
    int ret = read_block(d->backend->fd, buf, n, offset);
    if (ret)
        return error_set(err, ret, "read disk %u", b->disk);
    bool zero = is_zero(buf, n);
    uint8_t *p = wire_begin(w, WIRE_BLOCKS, 16 + (zero ? 0 : n));
    if (!p)
        return error_set(err, -ENOMEM, "send blocks");
    wire_set32(p, b->disk);
    wire_set32(p + 4, (uint32_t)n);
    wire_set64(p + 8, offset);
    if (!zero)
        memcpy(p + 16, buf, n);
    wire_end(w);
    return 0;
}

bool blocks_send(struct blocks *b, struct wire *w, int *ret, struct error *err) {
    *ret = 0;
    for (; b->disk < b->count; b->disk++, b->block = 0) {
        struct blocks_disk *d = &b->disks[b->disk];
        for (; d->backend && b->block < d->count; b->block++) {
            unsigned long word = d->todo[b->block / BITS] >> (b->block % BITS);
            if (word == 0)
                b->block |= BITS - 1;
            if (!(word & 1))
                continue;
            d->todo[b->block / BITS] &= ~(1ul << (b->block % BITS));
            b->left -= BLOCK;
            *ret = put_block(b, w, err);
            return true;
        }
    }
    return false;
}

// ---- the target's side ----

static int write_all(int fd, const uint8_t *p, uint64_t n, uint64_t offset) {
    while (n) {
        ssize_t put = pwrite(fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        p += put;
        n -= (uint64_t)put;
        offset += (uint64_t)put;
    }
    return 0;
}

static int write_zeroes(int fd, uint64_t n, uint64_t offset) {
    static const uint8_t zeroes[BLOCK];
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n) == 0)
        return 0;
    return write_all(fd, zeroes, n, offset);
}

int blocks_receive(struct block_backend *const *disks, unsigned count, const struct wire_message *m,
                   struct error *err) {
    uint32_t disk = m->len >= 16 ? wire_get32(m->body) : UINT32_MAX, n = m->len >= 16 ? wire_get32(m->body + 4) : 0;
    uint64_t offset = m->len >= 16 ? wire_get64(m->body + 8) : 0;
    bool zero = m->len == 16;
    if (disk >= count || n == 0 || n > BLOCK || (!zero && m->len != 16 + (size_t)n))
        return error_set(err, -EINVAL, "damaged stream: blocks of no disk");
    const struct block_backend *d = disks[disk];
    if (d->read_only || d->fd < 0 || offset > d->size || n > d->size - offset)
        return error_set(err, -EINVAL, "damaged stream: blocks outside of disk %u", disk);
    int ret = zero ? write_zeroes(d->fd, n, offset) : write_all(d->fd, m->body + 16, n, offset);
    return ret ? error_set(err, ret, "write disk %u", disk) : 0;
}
