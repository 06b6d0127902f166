// SPDX-License-Identifier: Apache-2.0
// The live door of nondeterminism: asks the host.
//
// monotonic_ns and tsc are called by engines while guest SSE/AVX state is live in the host registers, so they
// use integer registers only (the vDSO's clock_gettime is kernel code, built without vector instructions).
#include "core/nondet.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <x86intrin.h>

#define INTEGER_ONLY    __attribute__((target("general-regs-only")))
#define NSEC_PER_SEC    1000000000ull
#define CALIBRATE_NS    1000000ull // 1 ms: repeats within a millionth
#define CHECK_NS        1000000ull // 1 ms: good for a part in some thousands
#define CHECK_TOLERANCE 2000

INTEGER_ONLY static uint64_t host_clock_ns(clockid_t id) {
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

// CLOCK_MONOTONIC rather than _RAW: host timers (core/event.h) exist for the former only, and both are read
// without a system call.
INTEGER_ONLY static uint64_t live_monotonic_ns(void *ctx) {
    return host_clock_ns(CLOCK_MONOTONIC);
}

INTEGER_ONLY static uint64_t live_realtime_ns(void *ctx) {
    return host_clock_ns(CLOCK_REALTIME);
}

INTEGER_ONLY static uint64_t live_tsc(void *ctx) {
    return __rdtsc();
}

static void live_random(void *ctx, void *buf, size_t len) {
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = getrandom(p, len < 256 ? len : 256, 0); // up to 256 bytes come whole, getrandom(2)

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            // Cannot happen after boot with a valid buffer; predictable bytes must not pass as random ones.
            perror("getrandom");
            __builtin_trap();
        }
        p += n;
        len -= (size_t)n;
    }
}

// Intel SDM 3B 20.7.3: TSC Hz = ECX * EBX / EAX of leaf 15h, where ECX (the crystal) is enumerated. Leaf 16h gives
// the marketing frequency, off by up to one percent, so a calibration is preferred to it.
static uint64_t tsc_hz_cpuid(void) {
    unsigned eax, ebx, ecx, edx;

    if (!__get_cpuid(0x15, &eax, &ebx, &ecx, &edx) || !eax || !ebx || !ecx)
        return 0;
    return (uint64_t)ecx * ebx / eax;
}

static uint64_t tsc_hz_sysfs(void) {
    unsigned long long khz = 0;
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/tsc_freq_khz", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%llu", &khz) != 1 || khz > 100000000ull)
        khz = 0;
    fclose(f);
    return khz * 1000;
}

// A pair of readings taken together; the tightest of some tries, so that a preemption between them does not count.
static void read_pair(uint64_t *tsc, uint64_t *ns) {
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 16; i++) {
        uint64_t t0 = __rdtsc();
        uint64_t now = host_clock_ns(CLOCK_MONOTONIC);
        uint64_t t1 = __rdtsc();

        if (t1 - t0 < best) {
            best = t1 - t0;
            *tsc = t0 + best / 2;
            *ns = now;
        }
    }
}

static uint64_t expected_hz; // of nondet_expect_tsc_hz
static uint64_t measured_hz; // once in a process

void nondet_expect_tsc_hz(uint64_t hz) {
    expected_hz = hz;
}

static uint64_t tsc_hz_measure(uint64_t duration_ns) {
    struct timespec nap = {.tv_nsec = (long)duration_ns};
    uint64_t tsc0 = 0, ns0 = 0, tsc1 = 0, ns1 = 0;

    read_pair(&tsc0, &ns0);
    while (nanosleep(&nap, &nap) < 0 && errno == EINTR)
        ;
    read_pair(&tsc1, &ns1);
    if (ns1 <= ns0)
        return 1000000000ull;
    return (uint64_t)((unsigned __int128)(tsc1 - tsc0) * NSEC_PER_SEC / (ns1 - ns0));
}

static uint64_t tsc_hz_calibrate(void) {
    if (!measured_hz && expected_hz) {
        uint64_t hz = tsc_hz_measure(CHECK_NS), diff = hz > expected_hz ? hz - expected_hz : expected_hz - hz;
        if (diff <= expected_hz / CHECK_TOLERANCE)
            measured_hz = expected_hz;
    }
    if (!measured_hz)
        measured_hz = tsc_hz_measure(CALIBRATE_NS);
    return measured_hz;
}

void nondet_init_live(struct nondet *nd) {
    static const struct nondet_ops live_ops = {
        .monotonic_ns = live_monotonic_ns,
        .realtime_ns = live_realtime_ns,
        .tsc = live_tsc,
        .random = live_random,
    };

    *nd = (struct nondet){.ops = &live_ops};
    nd->tsc_hz = tsc_hz_cpuid();
    if (!nd->tsc_hz)
        nd->tsc_hz = tsc_hz_sysfs();
    if (!nd->tsc_hz)
        nd->tsc_hz = tsc_hz_calibrate();
}

void nondet_commit(struct nondet *nd, void (*effect)(void *ctx), void *ctx) {
    effect(ctx);
}
