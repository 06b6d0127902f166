// SPDX-License-Identifier: Apache-2.0
// The sampling profiler: a timer for each vCPU thread interrupts it; the handler notes where the guest was and which
// part of the engine was at work.
#ifndef CICADA_XLATE_PROFILE_H
#define CICADA_XLATE_PROFILE_H

#include "engine/xlate/engine.h"

// What a vCPU's thread does now. One store at the seams of the engine, all of them far from translated code.
static inline uint8_t part_enter(struct xcpu *x, enum engine_part part) {
    uint8_t before = x->part;
    x->part = (uint8_t)part;
    return before;
}
static inline void part_leave(struct xcpu *x, uint8_t before) {
    x->part = before;
}

// hz samples a second from profile_start_thread on.
int profile_create(struct xcpu *x, unsigned hz, struct error *err);
// engine_ops.profile_walk.
void profile_walk(struct engine *e, void (*fn)(void *ctx, const struct engine_sample *), void *ctx);
// On the vCPU's thread, before the seal; does nothing without profile_create. 0 or negative errno.
int profile_start_thread(struct xcpu *x, struct error *err);
void profile_destroy(struct xcpu *x);

#endif
