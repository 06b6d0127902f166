// SPDX-License-Identifier: Apache-2.0
// The sending side of a live migration: a state machine on the event loop.
//
//   CONNECT  manifest sent, waits until the target has built its machine
//   COPY     rounds of pre-copy while the guest runs
//   STOP     the guest stands; the last pages and the components are on their way, the target loads them
//   COMMIT   the target has loaded everything; the source has given up its disks and says so; waits for "running"
//   POSTCOPY the guest runs there and asks for the pages that it still lacks; the rest is sent meanwhile
//   MOVED    the guest runs there: end this process
//   LOST     the connection broke in POSTCOPY: the guest ran there and cannot go on, nor here. End this process
//   DOUBT    the connection broke in COMMIT: the target may run or not. The guest stands here until a person, who has
//            looked at the target, lets it go on or stops it (docs/MIGRATION.md)
//   FAILED   the guest goes on here, and never ran there
//
// Invariant: up to COMMIT the target does not run and the source may; from COMMIT on the source does not run by itself.
// Loop thread.
#ifndef CICADA_STATE_MIGRATE_SOURCE_H
#define CICADA_STATE_MIGRATE_SOURCE_H

#include "backend/block.h"
#include "core/machine.h"

enum source_stage {
    SOURCE_CONNECT,
    SOURCE_COPY,
    SOURCE_STOP,
    SOURCE_COMMIT,
    SOURCE_POSTCOPY,
    SOURCE_MOVED,
    SOURCE_DOUBT,
    SOURCE_LOST,
    SOURCE_FAILED,
    SOURCE_STAGE_COUNT,
};
const char *source_stage_name(enum source_stage stage);

enum source_postcopy {
    SOURCE_NO_POSTCOPY,
    SOURCE_POSTCOPY_LATER, // after the first round
    SOURCE_POSTCOPY_NOW,   // instead of it
};

struct source_options {
    enum source_postcopy postcopy; // the guest moves before all of its memory has
    uint64_t downtime_ns;          // for which the guest may stand
    uint64_t bandwidth;            // bytes per second, 0: what the connection takes
    unsigned rounds;               // of pre-copy, at most
    bool force;                    // stops the guest after so many rounds however much is left; else gives up
    bool throttle;                 // slows the vCPUs down where they write faster than can be sent
};

// What the owner of the machine does for its migration.
struct source_host {
    // The guest stands: what it has written is to be on the disks (they stay ours). 0 or negative errno with err set.
    int (*flush)(void *ctx, struct error *err);
    void (*give)(void *ctx);                   // gives the disks up: behind it another process may use them
    int (*take)(void *ctx, struct error *err); // takes them back, after a give; -EBUSY where another has them
    void (*ended)(void *ctx);           // MOVED, DOUBT, LOST or FAILED is reached. It must not destroy the source.
    struct block_backend *const *disks; // that are to be copied
    unsigned ndisks;
    void *ctx;
};

struct source_progress {
    enum source_stage stage;
    unsigned round;
    uint64_t total_bytes, left_bytes;   // of the first round; left to send in this one
    uint64_t sent_bytes, pages, zeroes; // bytes through the connection; pages with content and without, so far
    uint64_t rate;                      // bytes per second, of late
    unsigned throttle;                  // percent of the time that the vCPUs stand
    uint64_t downtime_ns;               // of the guest: estimated in COPY, measured afterwards
    uint64_t time_ns;                   // since the beginning
    int code;                           // FAILED, DOUBT, LOST: negative errno, and why
    const char *error;
};

struct source;

// Begins over fd, a connected stream socket, which it takes over on success. manifest is copied. host is borrowed
// until source_destroy. 0 or negative errno with err set.
int source_create(struct machine *m, int fd, const char *manifest, const struct source_options *opt,
                  const struct source_host *host, struct source **s, struct error *err);
// The guest goes on here unless it stands for another reason, or the stage is COMMIT or behind. NULL is legal.
void source_destroy(struct source *s);
void source_progress(const struct source *s, struct source_progress *p);
// Ends it: the guest goes on here. -EBUSY with err set from COMMIT on.
int source_cancel(struct source *s, struct error *err);
// DOUBT: a person says that the target does not run. The guest goes on here. -EINVAL in another stage, or the errno of
// host->take where the disks are in use.
int source_resume(struct source *s, struct error *err);

#endif
