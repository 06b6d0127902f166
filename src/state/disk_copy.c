// SPDX-License-Identifier: Apache-2.0
// Copying disks in rounds; see the header. Invariant: a cluster of a disk that is listened to is on a list, or written
// since the last sync, or the copy has what the disk has.
#define LOG_UNIT "disks"
#include "state/disk_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "backend/image_copy.h"
#include "util/io.h"
#include "util/log.h"

#define MAX_ROUNDS   8
#define ENOUGH_BYTES (2ull << 20) // so little left that another round does not pay

// ---- beginning and end ----

static void listen_to(struct disk_copies *c, bool on) {
    machine_pause(c->machine);
    for (unsigned i = 0; i < c->count; i++)
        if (c->disks[i].log.backend)
            block_log_listen(&c->disks[i].log, on);
    machine_resume(c->machine);
    c->listening = on;
}

// In rounds, unless there is nothing over an image whose blocks can be shared.
static int disk_begin(struct disk_copy *d) {
    d->shared = image_share(d->backend->fd, d->fd) == 0;
    if (d->shared && !d->backend->ops->own)
        return 0;
    if (!d->shared && ftruncate(d->fd, (off_t)d->backend->size) < 0)
        return -errno;
    return block_log_create(&d->log, d->backend);
}

static bool copies_in_rounds(const struct disk_copies *c) {
    for (unsigned i = 0; i < c->count; i++)
        if (c->disks[i].log.backend)
            return true;
    return false;
}

static void free_all(struct disk_copies *c) {
    for (unsigned i = 0; i < c->count; i++)
        block_log_destroy(&c->disks[i].log);
    c->count = 0;
}

int disk_copies_begin(struct disk_copies *c, struct machine *m, struct block_backend *const *disks, const int *fds,
                      unsigned count, struct error *err) {
    int ret = count > DISK_COPY_MAX ? error_set(err, -EINVAL, "too many disks to copy") : 0;
    *c = (struct disk_copies){.machine = m};
    for (unsigned i = 0; ret == 0 && i < count; i++) {
        struct disk_copy *d = &c->disks[c->count++];
        *d = (struct disk_copy){.backend = disks[i], .fd = fds[i]};
        if (d->fd >= 0 && (ret = disk_begin(d)))
            error_set(err, ret, "copy disk %u", i);
    }
    if (ret) {
        free_all(c);
        return ret;
    }
    if (!copies_in_rounds(c))
        return 0;
    listen_to(c, true); // first: what is written from here on is marked, what was written before is on the list
    for (unsigned i = 0; i < c->count; i++)
        if (c->disks[i].log.backend)
            block_log_add_all(&c->disks[i].log, !c->disks[i].shared);
    return 0;
}

void disk_copies_cancel(struct disk_copies *c) {
    atomic_store(&c->cancelled, true);
}

void disk_copies_end(struct disk_copies *c) {
    if (c->listening)
        listen_to(c, false);
    free_all(c);
}

// ---- copying ----

static int copy_cluster(struct disk_copies *c, struct disk_copy *d, uint64_t cluster) {
    uint64_t bytes = block_log_bytes(&d->log, cluster), at = cluster * BLOCK_CLUSTER;
    int ret = block_log_read(&d->log, cluster, c->buf);
    if (ret)
        return ret;
    return image_is_zero(c->buf, bytes) ? image_write_zeroes(d->fd, bytes, at) : io_write_at(d->fd, c->buf, bytes, at);
}

static int copy_list(struct disk_copies *c, struct disk_copy *d) {
    uint64_t cluster = 0;
    int ret = 0;
    while (ret == 0 && block_log_take(&d->log, cluster, &cluster)) {
        ret = atomic_load(&c->cancelled) ? -ECANCELED : copy_cluster(c, d, cluster);
        atomic_fetch_add(&c->done, block_log_bytes(&d->log, cluster));
    }
    return ret;
}

static uint64_t sync_lists(struct disk_copies *c) {
    uint64_t left = 0;
    for (unsigned i = 0; i < c->count; i++) {
        if (!c->disks[i].log.backend)
            continue;
        block_log_sync(&c->disks[i].log);
        left += block_log_left(&c->disks[i].log);
    }
    atomic_store(&c->done, 0);
    atomic_store(&c->total, left);
    return left;
}

static int copy_lists(struct disk_copies *c) {
    int ret = 0;
    for (unsigned i = 0; ret == 0 && i < c->count; i++)
        if (c->disks[i].log.backend)
            ret = copy_list(c, &c->disks[i]);
    return ret;
}

int disk_copies_rounds(struct disk_copies *c) {
    uint64_t before = UINT64_MAX, left = sync_lists(c);
    int ret = 0;
    for (unsigned round = 1; ret == 0 && left > ENOUGH_BYTES && left <= before / 2 && round <= MAX_ROUNDS; round++) {
        log_debug("round %u: %" PRIu64 " KiB to copy", round, left >> 10);
        ret = copy_lists(c);
        before = left;
        left = sync_lists(c);
    }
    return ret;
}

int disk_copies_finish(struct disk_copies *c, struct error *err) {
    uint64_t left = sync_lists(c);
    int ret = copy_lists(c);
    log_debug("%" PRIu64 " KiB of disks copied while the guest stood", left >> 10);
    for (unsigned i = 0; ret == 0 && i < c->count; i++) {
        struct disk_copy *d = &c->disks[i];
        if (d->fd >= 0 && !d->log.backend)
            ret = block_copy_to(d->backend, d->fd);
    }
    return ret ? error_set(err, ret, "copy the disks") : 0;
}
