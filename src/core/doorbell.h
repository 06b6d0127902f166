// SPDX-License-Identifier: Apache-2.0
// A doorbell: a guest-physical address where a write of any size and value says "look at the queue" and no more.
//
// Where the engine can (engine_ops.doorbell_add), the write does not leave the vCPU's run(): it counts in an eventfd,
// and the event loop rings. Elsewhere, and while the doorbell has no place, it comes as any access does (host->exit).
#ifndef CICADA_CORE_DOORBELL_H
#define CICADA_CORE_DOORBELL_H

#include "core/machine.h"

struct doorbell {
    struct machine *machine;
    event_fn ring;
    void *ctx;
    bool on_loop; // as engine_ops.doorbell_add
    int fd;       // eventfd, owned
    struct event_source *source;
    // Under the lock of whoever places it:
    struct engine *engine; // that has it at gpa; NULL: none
    gpa_t gpa;
};

// ring(ctx) is called on the loop thread, once for any number of writes since the last time. Before the seal.
// d is the caller's storage; on failure nothing is left in it.
int doorbell_init(struct doorbell *d, struct machine *m, bool on_loop, event_fn ring, void *ctx, struct error *err);
// Gives the engine that the machine has now the address, if it takes doorbells. The machine may have changed its engine
// since the last call: then call it again before the vCPUs run. Any thread.
void doorbell_place(struct doorbell *d, gpa_t gpa);
// Writes that were made before may still ring. Waits for the host's RCU (milliseconds) where an engine has it.
void doorbell_remove(struct doorbell *d);
// Loop stopped, or on its thread. An engine that still has it ends next: it is not told. Legal on zeroes.
void doorbell_fini(struct doorbell *d);

#endif
