// SPDX-License-Identifier: Apache-2.0
// The receiving side of a live migration. Before there is a machine: target_greet takes the manifest from which it is
// built, target_refuse says why it cannot be. Then, on the event loop of a machine in machine_run_incoming:
//
//   COPY     guest memory comes in
//   LOADED   everything has come, is verified and loaded; waits for the source to give the machine up
//   POSTCOPY the guest runs here, and pages of its memory are still on their way (state/migrate/postcopy.h)
//   RUNNING  the guest runs here
//   DOUBT    the connection broke in LOADED: the source has given the machine up, or goes on with it. The guest stands
//            here until a person, who has looked at the source, lets it go on or stops it (docs/MIGRATION.md). Not in
//            post-copy: a machine without all of its memory is no use
//   FAILED   it never ran here and never will: end this process
//
// Invariant: the guest runs here only behind WIRE_COMMIT or a person's word, and only with its disks locked.
// Loop thread.
#ifndef CICADA_STATE_MIGRATE_TARGET_H
#define CICADA_STATE_MIGRATE_TARGET_H

#include "backend/block.h"
#include "core/machine.h"
#include "state/migrate/wire.h"

enum target_stage {
    TARGET_COPY,
    TARGET_LOADED,
    TARGET_POSTCOPY,
    TARGET_RUNNING,
    TARGET_DOUBT,
    TARGET_FAILED,
    TARGET_STAGE_COUNT
};
const char *target_stage_name(enum target_stage stage);

struct target_host {
    int (*take)(void *ctx, struct error *err); // locks the disks; -EBUSY where another process has them
    struct postcopy *postcopy;                 // borrowed and started, where the source asks for it; else NULL
    struct block_backend *const *disks;        // that the source copies into
    unsigned ndisks;
    void (*ended)(void *ctx); // RUNNING, DOUBT or FAILED is reached. It must not destroy the target.
    void *ctx;
};

// Blocks for a while: the first messages of a connected socket, which belongs to w from then on, also on failure.
// *manifest: a string to free. Negative errno with err set: not a source of ours.
int target_greet(int fd, struct wire *w, char **manifest, struct error *err);
// Tells the source why, if it still listens, and closes. Blocks for a while at most.
void target_refuse(struct wire *w, const char *text);

struct target;
// The machine is built: goes on over w, which it takes over on success. host is borrowed until target_destroy.
int target_create(struct machine *m, struct wire *w, const struct target_host *host, struct target **t,
                  struct error *err);
void target_destroy(struct target *t); // before host->postcopy; NULL is legal
enum target_stage target_stage(const struct target *t);
const char *target_error(const struct target *t); // DOUBT, FAILED: why
// DOUBT: a person says that the source does not run. -EINVAL in another stage, or the errno of host->take.
int target_resume(struct target *t, struct error *err);

#endif
