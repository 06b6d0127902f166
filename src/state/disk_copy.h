// SPDX-License-Identifier: Apache-2.0
// Copies of the disks of a running machine, of one moment, without a stop that grows with them. Where the file system
// can share blocks (FICLONE), at that moment; else in rounds beside the guest: first all data, then what was written
// meanwhile, until little is left, which is copied at the moment itself.
#ifndef CICADA_STATE_DISK_COPY_H
#define CICADA_STATE_DISK_COPY_H

#include <stdatomic.h>

#include "core/machine.h"
#include "state/block_log.h"

#define DISK_COPY_MAX 16

struct disk_copy {
    struct block_log log; // backend NULL: not copied in rounds
    struct block_backend *backend;
    int fd;      // of the copy, borrowed; -1: this disk is not copied
    bool shared; // the copy has the image already
};

struct disk_copies {
    struct machine *machine;
    struct disk_copy disks[DISK_COPY_MAX];
    unsigned count;
    bool listening;
    atomic_bool cancelled;
    atomic_uint_fast64_t done, total; // bytes, of the present round
    uint8_t buf[BLOCK_CLUSTER];       // of whoever copies
};

// Begins to listen where that is needed (the machine is paused for a moment). disks[i] is copied to fds[i], an empty
// file, unless that is -1. Loop thread. 0, or negative errno with err set: nothing is left then.
int disk_copies_begin(struct disk_copies *c, struct machine *m, struct block_backend *const *disks, const int *fds,
                      unsigned count, struct error *err);
// Copies while the guest runs, until little is left or rounds do not become smaller. Any one thread; may take long.
// Returns 0, -ECANCELED or the errno of a file.
int disk_copies_rounds(struct disk_copies *c);
// The moment: the machine is paused. What is left. Loop thread.
int disk_copies_finish(struct disk_copies *c, struct error *err);
void disk_copies_cancel(struct disk_copies *c); // rounds end soon. Any thread
// Ends listening (the machine is paused for a moment). Loop thread, nobody in disk_copies_rounds. A zeroed one is
// legal.
void disk_copies_end(struct disk_copies *c);

#endif
