// SPDX-License-Identifier: Apache-2.0
// A component is anything with state that belongs to the machine: a chip, a device, the clock, a vCPU.
// It fills one const ops table; core keeps the list, state/ walks it. A component never includes state/.
#ifndef CICADA_CORE_COMPONENT_H
#define CICADA_CORE_COMPONENT_H

#include <stdbool.h>

#include "core/stateio.h"
#include "util/error.h"

struct component_ops {
    const char *name; // section name in a snapshot, unique with `instance`
    uint32_t version; // of what save writes
    bool of_engine;   // its state lives in the engine: it goes over when the engine changes
    // Any member except name may be NULL. All run with the vCPUs stopped, on the event-loop thread.
    void (*reset)(void *ctx);  // machine reset
    void (*pause)(void *ctx);  // quiesce: no new effects on guest memory after it returns
    void (*resume)(void *ctx); // only after a pause
    void (*save)(void *ctx, struct state_writer *w);
    int (*load)(void *ctx, struct state_reader *r, struct error *err);
    void (*destroy)(void *ctx); // frees ctx; components are destroyed in reverse order of registration
};

struct component {
    const struct component_ops *ops;
    void *ctx;
    unsigned instance;
    struct component *next; // list in order of registration
};

struct component_list {
    struct component *head, **tail;
};

void component_list_init(struct component_list *list);
// Registers; allocates the node. Returns 0 or -ENOMEM (then ctx stays the caller's).
int component_add(struct component_list *list, const struct component_ops *ops, void *ctx, unsigned instance);
void component_reset_all(struct component_list *list);
void component_pause_all(struct component_list *list);
void component_resume_all(struct component_list *list);
void component_destroy_all(struct component_list *list);

#endif
