// SPDX-License-Identifier: Apache-2.0
// Between target.c (stops and points) and target_state.c (registers and memory).
#ifndef CICADA_DEBUG_TARGET_PRIVATE_H
#define CICADA_DEBUG_TARGET_PRIVATE_H

#include "debug/target.h"

struct debug_vcpu {
    enum debug_action action;
    enum debug_step step; // as the engine has it
    // Written on the vCPU's thread before its stop, read and cleared on the loop's after it.
    bool has_event;
    struct debug_event event;
    struct cpu_state *state; // owned; of this stop
    bool valid, changed;     // state was got; it is to be set
};

// Loop thread only, but for the events and stop_posted.
struct debug_target {
    struct machine *machine; // borrowed
    struct debug_client client;
    bool attached; // somebody wants to know of events
    bool stopped;
    bool mask_interrupts;
    atomic_bool stop_posted;
    struct debug_point *points; // owned, DEBUG_POINTS_MAX
    unsigned npoints, nvcpus;
    struct debug_vcpu vcpu[];
};

// Gives the engine what was changed; the state is then no longer ours.
void debug_flush_state(struct debug_target *t, unsigned vcpu);
// What was read or changed is worth nothing any more.
void debug_forget_states(struct debug_target *t);

#endif
