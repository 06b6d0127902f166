// SPDX-License-Identifier: Apache-2.0
// Between raw.c (opening, steps of a request) and the ways to the kernel: raw_now.c for what need not wait, raw_uring.c
// or raw_thread.c for the rest.
#ifndef CICADA_BACKEND_RAW_FILE_H
#define CICADA_BACKEND_RAW_FILE_H

#include "backend/block.h"

// What to ask the kernel next for a request; a request takes several steps after a short transfer or where zeroes
// must be written out.
struct raw_step {
    enum { RAW_READV, RAW_WRITEV, RAW_WRITE, RAW_FDATASYNC, RAW_FALLOCATE } call;
    int mode; // RAW_FALLOCATE
    uint64_t offset, bytes;
    const struct iovec *iov; // RAW_READV, RAW_WRITEV
    unsigned niov;
    const void *buf; // RAW_WRITE
};

void raw_step_next(const struct block_req *req, struct raw_step *step);
// Makes the step on the calling thread, which may wait. Returns a count or negative errno.
int raw_step_run(int fd, const struct raw_step *step);
// Takes the kernel's answer (count or negative errno). Returns true when the request is finished, result set.
bool raw_step_result(struct block_req *req, int res);

// Both own fd from their success on.
int raw_uring_create(int fd, struct event_loop *loop, struct block_backend **b, struct error *err);
int raw_thread_create(int fd, struct event_loop *loop, struct block_backend **b, struct error *err);

#endif
