// SPDX-License-Identifier: Apache-2.0
// The machine's clock: virtual nanoseconds since power-on. It stands still while the machine is paused and
// goes on from the saved value after a restore, so every timer in a device is a deadline in virtual time.
#ifndef CICADA_CORE_CLOCK_H
#define CICADA_CORE_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/component.h"
#include "core/event.h"
#include "core/nondet.h"

struct clock {
    struct nondet *nd;
    struct event_loop *loop;
    pthread_mutex_t lock; // guards all below and the vtimers; readers of the time use `seq` instead
    bool initialized;
    // Virtual time: monotonic + base while running, base while stopped (wrapping arithmetic). Written under lock
    // between two increments of seq.
    atomic_uint seq;
    atomic_bool running;
    atomic_uint_fast64_t base_ns;
    struct vtimer *timers; // all initialised timers, to be re-armed on resume
};

// A one-shot timer in virtual time. fn runs on the event-loop thread, without a lock held, never while the
// machine is paused.
struct vtimer {
    struct clock *clock;
    struct event_timer host;
    event_fn fn;
    void *ctx;
    uint64_t deadline_ns; // UINT64_MAX = not armed
    struct vtimer *next, **prev;
};

// A clock starts paused at 0.
int clock_init(struct clock *clock, struct nondet *nd, struct event_loop *loop);
void clock_destroy(struct clock *clock);
uint64_t clock_now_ns(struct clock *clock);      // thread-safe
uint64_t clock_realtime_ns(struct clock *clock); // guest wall clock, since 1970 UTC
void clock_pause(struct clock *clock);
void clock_resume(struct clock *clock);
void clock_set(struct clock *clock, uint64_t now_ns); // while paused (load)

// Saves and loads the time; registered by the machine as its first component, so that it is loaded before any timer.
extern const struct component_ops clock_component_ops;

void vtimer_init(struct vtimer *t, struct clock *clock, event_fn fn, void *ctx);
void vtimer_fini(struct vtimer *t); // on the loop thread or with the loop stopped; a zeroed timer is legal
// Thread-safe; re-arming moves the deadline, one in the past fires at once, UINT64_MAX cancels. While the clock
// is paused the deadline is kept and counts from resume on.
void vtimer_arm(struct vtimer *t, uint64_t deadline_ns);
// Thread-safe. From a thread other than the loop's, a call of fn may be under way: fn takes its device's lock and
// looks again at what the device wants.
void vtimer_cancel(struct vtimer *t);
uint64_t vtimer_deadline(struct vtimer *t); // UINT64_MAX = not armed; thread-safe, for save

#endif
