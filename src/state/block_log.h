// SPDX-License-Identifier: Apache-2.0
// Which clusters of a disk are still to be copied while the guest goes on writing to it: migration and snapshots copy
// in rounds by it.
//
// A cluster is marked when a request that changes it is done, on whatever thread that is; the device learns of it
// behind that. So a write is in the log before the guest can know of it, and with devices quiesced the log is complete.
// One thread, where nothing else is said.
#ifndef CICADA_STATE_BLOCK_LOG_H
#define CICADA_STATE_BLOCK_LOG_H

#include "backend/block.h"

struct block_log {
    struct block_backend *backend;                   // NULL: nothing of it is to be copied
    uint64_t count;                                  // of clusters
    unsigned long *todo;                             // a bit a cluster
    unsigned long *written;                          // since the last sync; atomic
    void (*done)(void *ctx, struct block_req *list); // of the device, while we listen
    void *done_ctx;
};

// A list of nothing. -ENOMEM leaves nothing. The backend is borrowed.
int block_log_create(struct block_log *l, struct block_backend *backend);
void block_log_destroy(struct block_log *l); // while it does not listen; a zeroed one is legal
// Listens, or no longer. Devices are quiesced.
void block_log_listen(struct block_log *l, bool on);

// Puts all on the list that can hold anything but zeroes: data of the image, and the layer over it. image: else the
// layer alone.
void block_log_add_all(struct block_log *l, bool image);
// Adds what was written since the last call.
void block_log_sync(struct block_log *l);
uint64_t block_log_left(const struct block_log *l); // bytes on the list, in whole clusters

// Takes the first cluster at or behind `from` off the list. False: there is none.
bool block_log_take(struct block_log *l, uint64_t from, uint64_t *cluster);
uint64_t block_log_bytes(const struct block_log *l, uint64_t cluster); // its length
// What the guest would read there, into buf (BLOCK_CLUSTER bytes). Any thread. 0 or negative errno.
int block_log_read(const struct block_log *l, uint64_t cluster, uint8_t *buf);

#endif
