// SPDX-License-Identifier: Apache-2.0
// virtio-blk: one request queue over a struct block_backend. VIRTIO 1.2, 5.2.
//
// Doorbells are handled on the vCPU thread that rings: it submits to the backend right away and takes what is complete
// by then, so a request that the page cache answers costs no switch to another thread. On a host with two cores the
// second one is better left to the guest.
//
// Invariants: a chain is either with the backend, through a struct blk_req, or back in the used ring; requests come
// from a pool as large as the queue, which virtq bounds what is in flight by.
#define LOG_UNIT "blk"
#include "virtio/blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "virtio/iov.h"
#include "virtio/virtio_pci.h"

#define BIT_OF(feature) (UINT64_C(1) << (feature))

#define QUEUE_SIZE          256
#define SEG_MAX             (QUEUE_SIZE - 2) // header and status take two descriptors
// What one discard or write-zeroes may cover: bounds the time where the host has to write the zeroes out.
#define ZEROES_SECTORS_MAX  32768u
#define DISCARD_SECTORS_MAX 4194304u
#define ERRORS_LOGGED       8

struct blk_req {
    struct block_req block;
    struct virtq_elem *elem;
    uint8_t *status; // last byte of elem->in, guest memory
    struct blk_req *next_free;
};

struct virtio_blk {
    struct virtio_device vd;
    struct block_backend *backend;
    char serial[VIRTIO_BLK_ID_BYTES];
    // Under vd.lock:
    struct blk_req *free_reqs;
    struct block_req *finished; // handed back by the backend, not yet shown to the guest
    unsigned errors;
    struct blk_req reqs[QUEUE_SIZE];
};

static struct virtio_blk *from_vd(struct virtio_device *vd) {
    return CONTAINER_OF(vd, struct virtio_blk, vd);
}

// ---- requests ----

static struct blk_req *req_get(struct virtio_blk *blk, struct virtq_elem *elem) {
    struct blk_req *r = blk->free_reqs;
    if (!r)
        return NULL;
    blk->free_reqs = r->next_free;
    *r = (struct blk_req){.elem = elem};
    return r;
}

// Writes the status and gives the chain back; publish comes later, once for many.
static void req_finish(struct virtio_blk *blk, struct blk_req *r, uint8_t status) {
    *r->status = status;
    // All of `in` counts as written: the status is its last byte, whatever became of the data before it.
    virtq_push(&blk->vd.queues[0], r->elem, r->elem->in_len);
    r->next_free = blk->free_reqs;
    blk->free_reqs = r;
}

static uint8_t status_of(struct virtio_blk *blk, const struct block_req *block) {
    if (!block->result)
        return VIRTIO_BLK_S_OK;
    if (blk->errors++ < ERRORS_LOGGED)
        log_warn("request at byte %llu failed: %s", (unsigned long long)block->offset, strerror(-block->result));
    return VIRTIO_BLK_S_IOERR;
}

static void commit_finished(void *ctx) {
    struct virtio_blk *blk = ctx;
    pthread_mutex_lock(&blk->vd.lock);
    struct block_req *list = blk->finished;
    blk->finished = NULL;
    while (list) {
        struct block_req *next = list->next;
        req_finish(blk, CONTAINER_OF(list, struct blk_req, block), status_of(blk, list));
        list = next;
    }
    virtio_publish(&blk->vd, 0);
    pthread_mutex_unlock(&blk->vd.lock);
}

// From the backend, any thread.
static void backend_done(void *ctx, struct block_req *list) {
    struct virtio_blk *blk = ctx;
    struct block_req *last = list;
    while (last->next)
        last = last->next;
    pthread_mutex_lock(&blk->vd.lock);
    last->next = blk->finished;
    blk->finished = list;
    pthread_mutex_unlock(&blk->vd.lock);
    nondet_commit(&blk->vd.machine->nondet, commit_finished, blk);
}

// ---- request types: each returns -1 when it is with the backend, else its status at once ----

#define WITH_BACKEND (-1)

static bool range_ok(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes) {
    uint64_t sectors = blk->backend->size / BLOCK_SECTOR;
    return bytes % BLOCK_SECTOR == 0 && sector <= sectors && bytes / BLOCK_SECTOR <= sectors - sector;
}

static int do_transfer(struct virtio_blk *blk, struct blk_req *r, uint64_t sector, bool write) {
    struct virtq_elem *e = r->elem;
    uint64_t bytes = write ? e->out_len - sizeof(struct virtio_blk_outhdr) : e->in_len - 1;
    if (!range_ok(blk, sector, bytes) || (write && blk->backend->read_only))
        return VIRTIO_BLK_S_IOERR;
    if (!bytes)
        return VIRTIO_BLK_S_OK;
    r->block.op = write ? BLOCK_WRITE : BLOCK_READ;
    r->block.iov = write ? e->out : e->in;
    r->block.niov = write ? e->nout : e->nin;
    r->block.offset = sector * BLOCK_SECTOR;
    r->block.bytes = bytes;
    block_submit(blk->backend, &r->block);
    return WITH_BACKEND;
}

static int do_in(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    return do_transfer(blk, r, sector, false);
}

static int do_out(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    return do_transfer(blk, r, sector, true);
}

static int do_flush(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    if (blk->backend->read_only)
        return VIRTIO_BLK_S_OK;
    r->block.op = BLOCK_FLUSH;
    block_submit(blk->backend, &r->block);
    return WITH_BACKEND;
}

static int do_get_id(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    struct virtq_elem *e = r->elem;
    if (e->in_len < sizeof(blk->serial) + 1)
        return VIRTIO_BLK_S_IOERR;
    iov_from_buf(e->in, e->nin, 0, blk->serial, sizeof(blk->serial));
    return VIRTIO_BLK_S_OK;
}

// One segment a request, as max_discard_seg and max_write_zeroes_seg say (VIRTIO 1.2, 5.2.6.2).
static int do_range(struct virtio_blk *blk, struct blk_req *r, bool discard) {
    struct virtio_blk_discard_write_zeroes seg;
    struct virtq_elem *e = r->elem;
    if (e->out_len != sizeof(struct virtio_blk_outhdr) + sizeof(seg) || blk->backend->read_only)
        return VIRTIO_BLK_S_IOERR;
    iov_to_buf(e->out, e->nout, 0, &seg, sizeof(seg)); // the header is cut off already
    if (seg.flags & ~(discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
        return VIRTIO_BLK_S_UNSUPP;
    uint32_t max = discard ? DISCARD_SECTORS_MAX : ZEROES_SECTORS_MAX;
    uint64_t bytes = (uint64_t)seg.num_sectors * BLOCK_SECTOR;
    if (seg.num_sectors > max || !range_ok(blk, seg.sector, bytes))
        return VIRTIO_BLK_S_IOERR;
    if (!bytes)
        return VIRTIO_BLK_S_OK;
    r->block.op = discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES;
    r->block.offset = seg.sector * BLOCK_SECTOR;
    r->block.bytes = bytes;
    r->block.may_unmap = seg.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    block_submit(blk->backend, &r->block);
    return WITH_BACKEND;
}

static int do_discard(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    return do_range(blk, r, true);
}

static int do_zeroes(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) {
    return do_range(blk, r, false);
}

static int (*const request_table[])(struct virtio_blk *blk, struct blk_req *r, uint64_t sector) = {
    [VIRTIO_BLK_T_IN] = do_in,         [VIRTIO_BLK_T_OUT] = do_out,         [VIRTIO_BLK_T_FLUSH] = do_flush,
    [VIRTIO_BLK_T_GET_ID] = do_get_id, [VIRTIO_BLK_T_DISCARD] = do_discard, [VIRTIO_BLK_T_WRITE_ZEROES] = do_zeroes,
};

// Splits header and status off the chain. False when it has no room for them.
static bool req_parse(struct blk_req *r, struct virtio_blk_outhdr *hdr) {
    struct virtq_elem *e = r->elem;
    if (e->out_len < sizeof(*hdr) || !e->in_len)
        return false;
    iov_to_buf(e->out, e->nout, 0, hdr, sizeof(*hdr));
    iov_drop_front(&e->out, &e->nout, sizeof(*hdr));
    struct iovec *last = &e->in[e->nin - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    iov_drop_back(e->in, &e->nin, 1);
    return true;
}

// vd.lock held.
static void req_start(struct virtio_blk *blk, struct virtq_elem *elem) {
    struct virtio_blk_outhdr hdr;
    struct blk_req *r = req_get(blk, elem);
    if (!r || !req_parse(r, &hdr)) {
        if (r) {
            r->next_free = blk->free_reqs;
            blk->free_reqs = r;
        }
        virtq_push(&blk->vd.queues[0], elem, 0);
        virtio_fail(&blk->vd, "request without room for header and status");
        return;
    }
    int status = VIRTIO_BLK_S_UNSUPP;
    if (hdr.type < ARRAY_LEN(request_table) && request_table[hdr.type])
        status = request_table[hdr.type](blk, r, hdr.sector);
    if (status != WITH_BACKEND)
        req_finish(blk, r, (uint8_t)status);
}

// Takes at most a queue's worth, so that a guest that adds as fast as we take does not hold the thread.
// Returns true when chains are left.
static bool take_requests(struct virtio_blk *blk) {
    struct virtq *vq = &blk->vd.queues[0];
    unsigned left = QUEUE_SIZE;
    do {
        struct virtq_elem *elem;
        virtq_doorbell_off(vq);
        while (left && virtio_live(&blk->vd) && (elem = virtq_pop(vq))) {
            req_start(blk, elem);
            left--;
        }
    } while (virtq_doorbell_on(vq) && left && virtio_live(&blk->vd));
    virtio_publish(&blk->vd, 0); // those that were done at once
    return !left;
}

static void blk_handle_queue(struct virtio_device *vd, unsigned queue) {
    struct virtio_blk *blk = from_vd(vd);
    bool more = false;
    pthread_mutex_lock(&vd->lock);
    if (virtio_live(vd))
        more = take_requests(blk);
    pthread_mutex_unlock(&vd->lock);
    block_kick(blk->backend);
    if (more)
        virtio_defer(vd, queue);
}

// ---- device ----

static void blk_config(struct virtio_device *vd, uint8_t *buf) {
    const struct virtio_blk *blk = from_vd(vd);
    const struct virtio_blk_config config = {
        .capacity = blk->backend->size / BLOCK_SECTOR,
        .seg_max = SEG_MAX,
        .blk_size = BLOCK_SECTOR,
        .num_queues = 1,
        .max_discard_sectors = DISCARD_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = 4096 / BLOCK_SECTOR,
        .max_write_zeroes_sectors = ZEROES_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
    memcpy(buf, &config, vd->ops->config_len);
}

static void blk_quiesce(struct virtio_device *vd) {
    block_drain(from_vd(vd)->backend);
}

static void blk_destroy(struct virtio_device *vd) {
    struct virtio_blk *blk = from_vd(vd);
    block_destroy(blk->backend);
    virtio_device_fini(vd);
    free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .name = "virtio-blk",
    .id = VIRTIO_ID_BLOCK,
    .class_code = 0x010000,
    .queues = 1,
    .queue_size = {QUEUE_SIZE},
    .config_len = offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4,
    .config_read = blk_config,
    .handle_queue = blk_handle_queue,
    .quiesce = blk_quiesce,
    .destroy = blk_destroy,
};

static const struct component_ops blk_component = VIRTIO_COMPONENT_OPS("virtio-blk", 1);

static uint64_t blk_features(const struct block_backend *b) {
    uint64_t f = BIT_OF(VIRTIO_BLK_F_SEG_MAX) | BIT_OF(VIRTIO_BLK_F_BLK_SIZE) | BIT_OF(VIRTIO_BLK_F_FLUSH);
    if (b->read_only)
        return f | BIT_OF(VIRTIO_BLK_F_RO);
    return f | BIT_OF(VIRTIO_BLK_F_DISCARD) | BIT_OF(VIRTIO_BLK_F_WRITE_ZEROES);
}

static struct virtio_blk *blk_new(struct machine *m, struct block_backend *backend, const char *serial,
                                  struct error *err) {
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    if (!blk) {
        error_set(err, -ENOMEM, "create virtio-blk");
        return NULL;
    }
    if (virtio_device_init(&blk->vd, &blk_ops, m, blk_features(backend), err)) {
        free(blk);
        return NULL;
    }
    blk->backend = backend;
    if (serial)
        memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        blk->reqs[i].next_free = blk->free_reqs;
        blk->free_reqs = &blk->reqs[i];
    }
    return blk;
}

int virtio_blk_create(struct pci_host *host, unsigned slot, struct block_backend *backend, const char *serial,
                      struct error *err) {
    struct virtio_blk *blk = blk_new(pci_host_machine(host), backend, serial, err);
    if (!blk)
        return err->code;
    backend->done = backend_done;
    backend->done_ctx = blk;
    int ret = virtio_pci_attach(&blk->vd, host, slot, &blk_component, err);
    if (ret) {
        virtio_device_fini(&blk->vd);
        free(blk);
    }
    return ret;
}
