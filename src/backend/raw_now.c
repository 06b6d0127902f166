// SPDX-License-Identifier: Apache-2.0
// Reads ask the kernel not to wait (RWF_NOWAIT). Most file systems cannot promise that for buffered writes, though
// nearly all of them end in the page cache: so writes are just made, and as soon as one was seen to wait (the host
// throttles writers, the journal is full) the next ones go the slow way for a while.
#include "backend/raw_now.h"

#include <errno.h>
#include <sys/uio.h>

#include "backend/raw_file.h"
#include "util/io.h"

#define WRITE_BYTES_MAX (1u << 20)        // a copy that long is worth another core
#define WAITED_NS       UINT64_C(5000000) // longer than a copy and a preemption take
#define PAUSE_NS        UINT64_C(100000000)

// Returns true when the request is finished.
static bool read_now(struct raw_now *now, int fd, struct block_req *req) {
    struct raw_step s;
    if (atomic_load_explicit(&now->no_reads, memory_order_relaxed))
        return false;
    raw_step_next(req, &s);
    ssize_t n = preadv2(fd, s.iov, (int)s.niov, (off_t)s.offset, RWF_NOWAIT);
    if (n > 0)
        return raw_step_result(req, (int)n); // one call moves less than 2 GiB
    if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        atomic_store_explicit(&now->no_reads, true, memory_order_relaxed);
    return false; // whoever waits for it finds out about errors as well
}

static bool write_now(struct raw_now *now, int fd, struct block_req *req) {
    struct raw_step s;
    uint64_t start = io_now_ns();
    if (req->bytes > WRITE_BYTES_MAX || start < atomic_load_explicit(&now->writes_from_ns, memory_order_relaxed))
        return false;
    raw_step_next(req, &s);
    bool finished = raw_step_result(req, raw_step_run(fd, &s));
    uint64_t end = io_now_ns();
    if (end - start > WAITED_NS)
        atomic_store_explicit(&now->writes_from_ns, end + PAUSE_NS, memory_order_relaxed);
    return finished;
}

struct block_req *raw_now_run(struct raw_now *now, int fd, struct block_req *list, struct block_req **rest) {
    struct block_req *finished = NULL, **tail = &finished;
    *rest = NULL;
    while (list) {
        struct block_req *req = list;
        list = req->next;
        bool done = req->op == BLOCK_READ    ? read_now(now, fd, req)
                    : req->op == BLOCK_WRITE ? write_now(now, fd, req)
                                             : false;
        struct block_req ***to = done ? &tail : &rest;
        req->next = NULL;
        **to = req;
        *to = &req->next;
    }
    return finished;
}
