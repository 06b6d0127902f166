// SPDX-License-Identifier: Apache-2.0
// The single door for everything that is not determined by the machine's own state: time, randomness,
// external input, completion order. No device and no engine asks the OS for these. Record and replay
// install themselves here by replacing the ops.
#ifndef CICADA_CORE_NONDET_H
#define CICADA_CORE_NONDET_H

#include <stddef.h>
#include <stdint.h>

struct nondet;

struct nondet_ops {
    uint64_t (*monotonic_ns)(void *ctx); // CLOCK_MONOTONIC_RAW-like, never goes back
    uint64_t (*realtime_ns)(void *ctx);  // since 1970-01-01 UTC
    uint64_t (*tsc)(void *ctx);          // host TSC ticks
    void (*random)(void *ctx, void *buf, size_t len);
};

struct nondet {
    const struct nondet_ops *ops;
    void *ctx;
    uint64_t tsc_hz; // host TSC frequency in Hz, measured or read once at creation
};

// The live door: asks the host. tsc_hz from CPUID 15h/16h, /sys, or a calibration of 1 ms.
void nondet_init_live(struct nondet *nd);

static inline uint64_t nondet_monotonic_ns(struct nondet *nd) {
    return nd->ops->monotonic_ns(nd->ctx);
}
static inline uint64_t nondet_realtime_ns(struct nondet *nd) {
    return nd->ops->realtime_ns(nd->ctx);
}
static inline uint64_t nondet_tsc(struct nondet *nd) {
    return nd->ops->tsc(nd->ctx);
}
static inline void nondet_random(struct nondet *nd, void *buf, size_t len) {
    nd->ops->random(nd->ctx, buf, len);
}

// A frequency measured earlier, perhaps on another host: where a measurement of 1 ms finds no other, nondet_init_live
// takes it, so that the guest keeps the figure it was booted with. 0: none. Before nondet_init_live, on its thread.
void nondet_expect_tsc_hz(uint64_t hz);

// Runs an effect that the guest can see (a completion, a received packet). Live: at once, on the calling thread.
void nondet_commit(struct nondet *nd, void (*effect)(void *ctx), void *ctx);

#endif
