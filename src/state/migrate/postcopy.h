// SPDX-License-Identifier: Apache-2.0
// The target's side of post-copy: the guest runs (or its devices are being loaded) while pages are still at the source.
// From WIRE_PENDING on, which names those pages, a thread of its own has the connection: it puts the pages that come,
// asks for those that somebody waits for, and passes on to the loop thread what is not about pages. The loop thread
// cannot do that: it may be the one that waits for a page.
//
// Where the connection breaks before the guest was let run, the machine is no use here, and the source has all of it.
// Behind that the guest is lost, unless every page has come: `lost` is called, as nothing else can be done.
#ifndef CICADA_STATE_MIGRATE_POSTCOPY_H
#define CICADA_STATE_MIGRATE_POSTCOPY_H

#include "core/machine.h"
#include "state/migrate/wire.h"

struct postcopy;

// All on the loop thread. ctx is of postcopy_begin.
struct postcopy_host {
    void (*message)(void *ctx, const struct wire_message *m); // WIRE_STATE, WIRE_BLOCKS or WIRE_COMMIT has come
    void (*complete)(void *ctx);                              // every page is here, and the source knows
    void (*broken)(void *ctx, const struct error *why);       // before postcopy_run
};

// Phase "open", the engine exists: makes the userfaultfd. lost(ctx, why), on its thread: must end the process.
int postcopy_create(struct machine *m, void (*lost)(void *ctx, const char *why), void *ctx, struct postcopy **p,
                    struct error *err);
// Starts the thread, with the vCPUs'; it sleeps until postcopy_begin.
int postcopy_start(struct postcopy *p, struct error *err);
// Before the machine's memory; NULL is legal.
void postcopy_destroy(struct postcopy *p);

// WIRE_PENDING: takes the wire over on success. Loop thread, as the rest.
int postcopy_begin(struct postcopy *p, struct wire *w, const struct wire_message *m, const struct postcopy_host *host,
                   void *ctx, struct error *err);
// Sends a message without a body.
void postcopy_say(struct postcopy *p, enum wire_type type);
// The guest is about to run. -EIO where the connection has broken before: it must not.
int postcopy_run(struct postcopy *p, struct error *err);
// Gives the wire back and ends the thread; pages that are missing are zeroes then.
void postcopy_end(struct postcopy *p, struct wire *w);

#endif
