// SPDX-License-Identifier: Apache-2.0
// Disks that are copied along with a migration (--copy-disks): which blocks the target lacks, and the messages that
// carry them. Raw images only: they are read and written by their descriptors. Loop thread.
#ifndef CICADA_STATE_MIGRATE_BLOCKS_H
#define CICADA_STATE_MIGRATE_BLOCKS_H

#include "backend/block.h"
#include "core/machine.h"
#include "state/block_log.h"
#include "state/migrate/wire.h"

#define BLOCKS_MAX_DISKS 16

struct blocks {
    struct machine *machine;
    struct block_log disks[BLOCKS_MAX_DISKS];
    unsigned count;
    unsigned disk; // where the round stands
    uint64_t cluster;
    uint64_t left; // bytes to send in this round
    bool listening;
};

// Disks that a guest can write to, in the order of the machine. Begins to listen (the machine is paused for a moment)
// and puts all data on the list. 0, or negative errno with err set; on failure nothing is left.
int blocks_begin(struct blocks *b, struct machine *m, struct block_backend *const *disks, unsigned count,
                 struct error *err);
// Ends listening: the machine is paused for a moment. A zeroed one is legal.
void blocks_end(struct blocks *b);
// Adds what was written since the last call and begins a round.
void blocks_sync(struct blocks *b);
// Queues a piece. True; false where the round is at its end; negative errno with err set in *ret.
bool blocks_send(struct blocks *b, struct wire *w, int *ret, struct error *err);

// WIRE_BLOCKS into the target's disk. -EINVAL with err set where there is none such, or the errno of the write.
int blocks_receive(struct block_backend *const *disks, unsigned count, const struct wire_message *m, struct error *err);

#endif
