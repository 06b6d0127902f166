// SPDX-License-Identifier: Apache-2.0
// Rounds over the clusters that the target lacks; see the header.
#include "state/migrate/blocks.h"

#include <errno.h>
#include <string.h>

#include "backend/image_copy.h"
#include "util/io.h"

// ---- listening ----

static void listen_to(struct blocks *b, bool on) {
    machine_pause(b->machine);
    for (unsigned i = 0; i < b->count; i++)
        if (b->disks[i].backend)
            block_log_listen(&b->disks[i], on);
    machine_resume(b->machine);
    b->listening = on;
}

// ---- what is to be sent ----

static void begin_round(struct blocks *b) {
    b->disk = 0;
    b->cluster = 0;
    b->left = 0;
    for (unsigned i = 0; i < b->count; i++)
        b->left += block_log_left(&b->disks[i]);
}

static int disk_init(struct block_log *l, struct block_backend *backend, unsigned index, struct error *err) {
    *l = (struct block_log){0};
    if (backend->read_only)
        return 0;
    if (backend->fd < 0)
        return error_set(err, -EINVAL, "disk %u is no raw image, which copying needs", index);
    int ret = block_log_create(l, backend);
    return ret ? error_set(err, ret, "lists of blocks") : 0;
}

static void blocks_free(struct blocks *b) {
    for (unsigned i = 0; i < b->count; i++)
        block_log_destroy(&b->disks[i]);
    *b = (struct blocks){0};
}

// Holes are holes at the target, whose file is new.
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
            block_log_add_all(&b->disks[i], true);
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
        block_log_sync(&b->disks[i]);
    begin_round(b);
}

// ---- sending ----

static int put_cluster(struct blocks *b, struct wire *w, struct error *err) {
    static uint8_t buf[BLOCK_CLUSTER]; // loop thread
    const struct block_log *l = &b->disks[b->disk];
    uint64_t n = block_log_bytes(l, b->cluster);
    int ret = block_log_read(l, b->cluster, buf);
    if (ret)
        return error_set(err, ret, "read disk %u", b->disk);
    bool zero = image_is_zero(buf, n);
    uint8_t *p = wire_begin(w, WIRE_BLOCKS, 16 + (zero ? 0 : n));
    if (!p)
        return error_set(err, -ENOMEM, "send blocks");
    wire_set32(p, b->disk);
    wire_set32(p + 4, (uint32_t)n);
    wire_set64(p + 8, b->cluster * BLOCK_CLUSTER);
    if (!zero)
        memcpy(p + 16, buf, n);
    wire_end(w);
    return 0;
}

bool blocks_send(struct blocks *b, struct wire *w, int *ret, struct error *err) {
    *ret = 0;
    for (; b->disk < b->count; b->disk++, b->cluster = 0) {
        if (!block_log_take(&b->disks[b->disk], b->cluster, &b->cluster))
            continue;
        b->left -= BLOCK_CLUSTER;
        *ret = put_cluster(b, w, err);
        return true;
    }
    return false;
}

// ---- the target's side ----

int blocks_receive(struct block_backend *const *disks, unsigned count, const struct wire_message *m,
                   struct error *err) {
    uint32_t disk = m->len >= 16 ? wire_get32(m->body) : UINT32_MAX, n = m->len >= 16 ? wire_get32(m->body + 4) : 0;
    uint64_t offset = m->len >= 16 ? wire_get64(m->body + 8) : 0;
    bool zero = m->len == 16;
    if (disk >= count || n == 0 || n > BLOCK_CLUSTER || (!zero && m->len != 16 + (size_t)n))
        return error_set(err, -EINVAL, "damaged stream: blocks of no disk");
    const struct block_backend *d = disks[disk];
    if (d->read_only || d->fd < 0 || offset > d->size || n > d->size - offset)
        return error_set(err, -EINVAL, "damaged stream: blocks outside of disk %u", disk);
    int ret = zero ? image_write_zeroes(d->fd, n, offset) : io_write_at(d->fd, m->body + 16, n, offset);
    return ret ? error_set(err, ret, "write disk %u", disk) : 0;
}
