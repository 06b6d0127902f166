// SPDX-License-Identifier: Apache-2.0
// A block device of the host as a device of the guest sees it: asynchronous requests on byte ranges.
//
// submit queues, kick starts what is queued and may complete some of it at once; done() is called with lists of
// finished requests, on the thread that kicks, on the event-loop thread or in drain: with no lock of the backend held,
// and never from submit. So a device submits under its own lock and kicks without it.
#ifndef CICADA_BACKEND_BLOCK_H
#define CICADA_BACKEND_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/event.h"
#include "util/error.h"

#define BLOCK_SECTOR  512u
#define BLOCK_CLUSTER 65536u // of layers, and of copies that are made while a disk is written

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

// The caller's, from submit until done.
struct block_req {
    enum block_op op;
    uint64_t offset, bytes; // inside the device; not for BLOCK_FLUSH
    struct iovec *iov;      // BLOCK_READ, BLOCK_WRITE: `bytes` in all; consumed by the backend
    unsigned niov;
    bool may_unmap;         // BLOCK_WRITE_ZEROES: blocks may be given back to the host
    int result;             // set when done: 0 or negative errno
    struct block_req *next; // of the backend; in done() the list
    uint64_t done;          // of the backend: bytes finished
};

struct block_backend;

struct block_backend_ops {
    const char *name;
    // All may be called from any thread, except destroy.
    void (*submit)(struct block_backend *b, struct block_req *req);
    void (*kick)(struct block_backend *b);
    // Returns when no request is under way; calls done for the last ones itself.
    void (*drain)(struct block_backend *b);
    // Of a private layer over the image in backend.fd; both NULL where there is none. Any thread, also while requests
    // are under way. Is the cluster at `offset` in the layer? What the guest would read: 0 or negative errno.
    bool (*own)(struct block_backend *b, uint64_t offset);
    int (*peek)(struct block_backend *b, uint8_t *buf, uint64_t bytes, uint64_t offset);
    void (*destroy)(struct block_backend *b);
};

struct block_backend {
    const struct block_backend_ops *ops;
    uint64_t size; // bytes, a multiple of BLOCK_SECTOR
    bool read_only;
    int fd; // of the image, the backend's; -1 where there is none
    // Set by the device before its first request.
    void (*done)(void *ctx, struct block_req *list);
    void *done_ctx;
};

static inline void block_submit(struct block_backend *b, struct block_req *req) {
    b->ops->submit(b, req);
}
static inline void block_kick(struct block_backend *b) {
    b->ops->kick(b);
}
static inline void block_drain(struct block_backend *b) {
    b->ops->drain(b);
}
static inline void block_destroy(struct block_backend *b) {
    if (b)
        b->ops->destroy(b); // drains first
}

struct raw_options {
    bool read_only;
    bool no_uring; // the thread even where io_uring works; for tests
    bool unlocked; // the VM comes in by a migration: raw_lock follows when it may run
};

// Opens an image file or a block device of the host and locks it against other VMs: shared when read-only, else
// exclusive. In the phase "open": makes all its descriptors and threads here.
int raw_open(const char *path, const struct raw_options *opt, struct event_loop *loop, struct block_backend **b,
             struct error *err);
// The lock of raw_open, given back and taken again. 0, or -EBUSY where another VM has it. Any thread.
int raw_lock(struct block_backend *b);
void raw_unlock(struct block_backend *b);

// The image is only read (and locked shared); what the guest writes goes into a private layer that is gone at the end.
int overlay_open(const char *path, struct block_backend **b, struct error *err);

#endif
