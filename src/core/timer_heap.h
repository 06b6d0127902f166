// SPDX-License-Identifier: Apache-2.0
// Pairing heap of event timers. Intrusive, so that arming a timer never allocates and never fails.
// Not thread-safe: the event loop's lock guards it.
#ifndef CICADA_CORE_TIMER_HEAP_H
#define CICADA_CORE_TIMER_HEAP_H

#include "core/event.h"

struct timer_heap {
    struct event_timer *root; // earliest deadline; NULL when empty
};

void timer_heap_insert(struct timer_heap *h, struct event_timer *t); // t is not in a heap
void timer_heap_remove(struct timer_heap *h, struct event_timer *t); // t is in h

#endif
