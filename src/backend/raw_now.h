// SPDX-License-Identifier: Apache-2.0
// Requests done at once on the thread that kicks, because the host's page cache takes them without waiting. A hand-over
// to another thread costs several times what the copy does, and on a small host the guest waits for that thread.
#ifndef CICADA_BACKEND_RAW_NOW_H
#define CICADA_BACKEND_RAW_NOW_H

#include <stdatomic.h>

#include "backend/block.h"

// One for each image; zero to begin with. Any thread, without a lock.
struct raw_now {
    atomic_bool no_reads;                // this file system cannot say whether a read would wait
    atomic_uint_fast64_t writes_from_ns; // CLOCK_MONOTONIC; before it writes are left alone: one has waited
};

// Takes a list linked by `next`. Returns those requests that are finished now, in their order; *rest gets the others,
// which may have been done in part.
struct block_req *raw_now_run(struct raw_now *now, int fd, struct block_req *list, struct block_req **rest);

#endif
