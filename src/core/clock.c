// SPDX-License-Identifier: Apache-2.0
// Virtual time and timers in it.
//
// Invariants: virtual time never goes back (clock_set aside) and stands still while the clock is paused; a host timer
// is armed only while the clock runs. Host timers are armed by the distance to the deadline and checked against virtual
// time when they fire, so the door that gives the time (replay, say) need not run like the host's clock.
// Lock order: a device's lock, then clock->lock, then the event loop's.
#define LOG_UNIT "clock"
#include "core/clock.h"

#include <errno.h>

#define NEVER UINT64_MAX

int clock_init(struct clock *clock, struct nondet *nd, struct event_loop *loop) {
    *clock = (struct clock){.nd = nd, .loop = loop};
    int ret = pthread_mutex_init(&clock->lock, NULL);
    if (ret)
        return -ret;
    clock->initialized = true;
    return 0;
}

void clock_destroy(struct clock *clock) {
    if (!clock->initialized)
        return;
    while (clock->timers)
        vtimer_fini(clock->timers);
    pthread_mutex_destroy(&clock->lock);
    clock->initialized = false;
}

// Retries while a pause or resume is under way: it changes two fields that belong together.
uint64_t clock_now_ns(struct clock *clock) {
    for (;;) {
        unsigned seq = atomic_load_explicit(&clock->seq, memory_order_acquire);
        bool running = atomic_load_explicit(&clock->running, memory_order_relaxed);
        uint64_t base = atomic_load_explicit(&clock->base_ns, memory_order_relaxed);
        uint64_t now = running ? nondet_monotonic_ns(clock->nd) + base : base;

        atomic_thread_fence(memory_order_acquire);
        if (!(seq & 1) && seq == atomic_load_explicit(&clock->seq, memory_order_relaxed))
            return now;
    }
}

uint64_t clock_realtime_ns(struct clock *clock) {
    return nondet_realtime_ns(clock->nd);
}

// Under lock.
static void clock_change(struct clock *clock, bool running, uint64_t base_ns) {
    atomic_fetch_add_explicit(&clock->seq, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&clock->running, running, memory_order_relaxed);
    atomic_store_explicit(&clock->base_ns, base_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&clock->seq, 1, memory_order_release);
}

// Arms the host timer for a vtimer of a running clock. Under lock.
static void host_arm(struct vtimer *t) {
    uint64_t now = clock_now_ns(t->clock), at;
    uint64_t distance = t->deadline_ns > now ? t->deadline_ns - now : 0;

    if (__builtin_add_overflow(event_now_ns(), distance, &at))
        at = NEVER - 1;
    event_timer_arm(&t->host, at);
}

void clock_pause(struct clock *clock) {
    pthread_mutex_lock(&clock->lock);
    if (clock->running) {
        clock_change(clock, false, clock_now_ns(clock));
        for (struct vtimer *t = clock->timers; t; t = t->next)
            event_timer_cancel(&t->host);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_resume(struct clock *clock) {
    pthread_mutex_lock(&clock->lock);
    if (!clock->running) {
        clock_change(clock, true, clock->base_ns - nondet_monotonic_ns(clock->nd));
        for (struct vtimer *t = clock->timers; t; t = t->next)
            if (t->deadline_ns != NEVER)
                host_arm(t);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_set(struct clock *clock, uint64_t now_ns) {
    pthread_mutex_lock(&clock->lock);
    if (!clock->running)
        clock_change(clock, false, now_ns);
    pthread_mutex_unlock(&clock->lock);
}

// ---- component ----

static void clock_save(void *ctx, struct state_writer *w) {
    state_put_u64(w, clock_now_ns(ctx));
}

static int clock_load(void *ctx, struct state_reader *r, struct error *err) {
    uint64_t now = state_get_u64(r);

    // A time from which deadlines would wrap is no state that a save can have written: 292 years.
    if (r->error || now > INT64_MAX)
        return error_set(err, -EINVAL, "clock: bad saved time");
    clock_set(ctx, now);
    return 0;
}

// No reset: the time since power-on goes on over a machine reset, as a host's does.
const struct component_ops clock_component_ops = {
    .name = "clock",
    .version = 1,
    .save = clock_save,
    .load = clock_load,
};

// ---- timers ----

// On the loop thread. The clock may have been paused, or the timer moved, between expiry and this call.
static void vtimer_fire(void *ctx) {
    struct vtimer *t = ctx;
    struct clock *clock = t->clock;
    bool due = false;

    pthread_mutex_lock(&clock->lock);
    if (clock->running && t->deadline_ns != NEVER) {
        due = t->deadline_ns <= clock_now_ns(clock);
        if (due)
            t->deadline_ns = NEVER;
        else
            host_arm(t);
    }
    pthread_mutex_unlock(&clock->lock);
    if (due)
        t->fn(t->ctx);
}

void vtimer_init(struct vtimer *t, struct clock *clock, event_fn fn, void *ctx) {
    *t = (struct vtimer){.clock = clock, .fn = fn, .ctx = ctx, .deadline_ns = NEVER};
    event_timer_init(&t->host, clock->loop, vtimer_fire, t);
    pthread_mutex_lock(&clock->lock);
    t->next = clock->timers;
    t->prev = &clock->timers;
    if (t->next)
        t->next->prev = &t->next;
    clock->timers = t;
    pthread_mutex_unlock(&clock->lock);
}

void vtimer_fini(struct vtimer *t) {
    struct clock *clock = t->clock;

    if (!clock)
        return;
    pthread_mutex_lock(&clock->lock);
    event_timer_cancel(&t->host);
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    pthread_mutex_unlock(&clock->lock);
    *t = (struct vtimer){.deadline_ns = NEVER};
}

void vtimer_arm(struct vtimer *t, uint64_t deadline_ns) {
    pthread_mutex_lock(&t->clock->lock);
    t->deadline_ns = deadline_ns;
    if (deadline_ns == NEVER)
        event_timer_cancel(&t->host);
    else if (t->clock->running)
        host_arm(t);
    pthread_mutex_unlock(&t->clock->lock);
}

void vtimer_cancel(struct vtimer *t) {
    vtimer_arm(t, NEVER);
}

uint64_t vtimer_deadline(struct vtimer *t) {
    pthread_mutex_lock(&t->clock->lock);
    uint64_t deadline = t->deadline_ns;
    pthread_mutex_unlock(&t->clock->lock);
    return deadline;
}
