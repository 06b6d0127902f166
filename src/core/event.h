// SPDX-License-Identifier: Apache-2.0
// The event loop: one thread, epoll, host-time timers (on which core/clock.h builds those in virtual time).
// It opens its three file descriptors at creation and none later, so it works unchanged after the seal.
#ifndef CICADA_CORE_EVENT_H
#define CICADA_CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

struct event_loop;
struct event_source; // one watched fd

typedef void (*event_fd_fn)(void *ctx, uint32_t epoll_events);
typedef void (*event_fn)(void *ctx);

int event_loop_create(struct event_loop **loop, struct error *err);
void event_loop_destroy(struct event_loop *loop);

// Runs until event_loop_quit; returns the value given there. The calling thread becomes the loop thread.
int event_loop_run(struct event_loop *loop);
// Thread-safe; the first value given wins.
void event_loop_quit(struct event_loop *loop, int value);

// fd stays the caller's; level-triggered epoll events. Callbacks run on the loop thread. Thread-safe.
// -EPERM for an fd that cannot be watched (a regular file), or another negative errno.
int event_add(struct event_loop *loop, int fd, uint32_t events, event_fd_fn fn, void *ctx, struct event_source **src);
int event_modify(struct event_source *src, uint32_t events);
// After it returns no callback for src starts; call it on the loop thread or with the loop stopped. Frees src;
// NULL is legal. Remove before closing the fd.
void event_remove(struct event_source *src);

// Runs fn(ctx) on the loop thread soon, in order of posting. Thread-safe. Returns 0 or -ENOMEM.
int event_post(struct event_loop *loop, event_fn fn, void *ctx);

// The clock of event timers: CLOCK_MONOTONIC. For core/ only; devices ask core/clock.h.
uint64_t event_now_ns(void);

// Host-time one-shot timer in CLOCK_MONOTONIC ns; used by core/clock.c, devices use vtimer.
struct event_timer {
    struct event_loop *loop;
    event_fn fn;
    void *ctx;
    // Private to event.c, under the loop's lock.
    uint64_t deadline_ns;
    bool armed;
    struct event_timer *child, *next, **link; // pairing heap, core/timer_heap.h
};
void event_timer_init(struct event_timer *t, struct event_loop *loop, event_fn fn, void *ctx);
// Thread-safe; re-arming moves the deadline. A deadline in the past fires at once.
void event_timer_arm(struct event_timer *t, uint64_t deadline_ns);
// On the loop thread fn does not start after it returns; from another thread a call may be under way.
void event_timer_cancel(struct event_timer *t);

#endif
