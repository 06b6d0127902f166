// SPDX-License-Identifier: Apache-2.0
// Takes time away from the vCPUs so that a migration can keep up with what they write: in each period they stand for a
// share of it, while devices, clock and timers go on. Loop thread.
#ifndef CICADA_STATE_MIGRATE_THROTTLE_H
#define CICADA_STATE_MIGRATE_THROTTLE_H

#include "core/machine.h"

struct throttle {
    struct machine *machine;
    struct event_timer timer;
    unsigned percent; // of the time that the vCPUs stand; 0: off
    bool standing;    // they do now
};

void throttle_init(struct throttle *t, struct machine *m);
// 0..99; takes effect with the next period.
void throttle_set(struct throttle *t, unsigned percent);
// Off at once; the vCPUs run unless something else stops them. Legal on a zeroed one.
void throttle_stop(struct throttle *t);

#endif
