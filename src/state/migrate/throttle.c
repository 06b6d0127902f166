// SPDX-License-Identifier: Apache-2.0
// A duty cycle on core's stop of the vCPUs; no engine knows of it. The stop is begun and not waited for: what counts is
// the time, not the moment.
#include "state/migrate/throttle.h"

#define PERIOD_NS 20000000u // short against what a user notices, long against the cost of a stop

static void stand(struct throttle *t, bool on) {
    if (on == t->standing)
        return;
    t->standing = on;
    if (on)
        machine_pause_begin(t->machine);
    else
        machine_resume(t->machine);
}

static void tick(void *ctx) {
    struct throttle *t = ctx;
    uint64_t share = (uint64_t)PERIOD_NS / 100 * t->percent;
    stand(t, t->percent && !t->standing);
    if (t->percent)
        event_timer_arm(&t->timer, event_now_ns() + (t->standing ? share : PERIOD_NS - share));
}

void throttle_init(struct throttle *t, struct machine *m) {
    *t = (struct throttle){.machine = m};
    event_timer_init(&t->timer, m->loop, tick, t);
}

void throttle_set(struct throttle *t, unsigned percent) {
    bool off = t->percent == 0;
    t->percent = percent;
    if (off && percent)
        event_timer_arm(&t->timer, event_now_ns());
}

void throttle_stop(struct throttle *t) {
    if (!t->machine)
        return;
    t->percent = 0;
    event_timer_cancel(&t->timer);
    stand(t, false);
}
