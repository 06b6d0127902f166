// SPDX-License-Identifier: Apache-2.0
// See kvmclock.h. Both structures are read by any vCPU of the guest while they are written: the version is odd during
// an update (msr.rst, "version").
#include "arch/x86/kvmclock.h"

#define NSEC_PER_SEC 1000000000ull
#define TSC_STABLE   1u
#define MSR_ENABLE   1ull

struct time_info { // struct pvclock_vcpu_time_info
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "ABI");

struct wall_clock { // struct pvclock_wall_clock
    uint32_t version, sec, nsec;
};
_Static_assert(sizeof(struct wall_clock) == 12, "ABI");

void kvmclock_scale(uint64_t tsc_hz, uint32_t *mul, int8_t *shift) {
    uint64_t hz = tsc_hz ? tsc_hz : NSEC_PER_SEC;
    int s = 0;

    // Bring the frequency into (1, 2] GHz: then mul has 32 significant bits.
    for (; hz > 2 * NSEC_PER_SEC; hz >>= 1)
        s--;
    for (; hz <= NSEC_PER_SEC; hz <<= 1)
        s++;
    *shift = (int8_t)s;
    hz = tsc_hz ? tsc_hz : NSEC_PER_SEC;
    if (s >= 0)
        *mul = (uint32_t)(((unsigned __int128)NSEC_PER_SEC << 32) / ((unsigned __int128)hz << s));
    else
        *mul = (uint32_t)(((unsigned __int128)NSEC_PER_SEC << (32 - s)) / hz);
}

uint64_t kvmclock_ns(uint64_t tsc_hz, uint64_t ticks) {
    uint32_t mul;
    int8_t shift;

    kvmclock_scale(tsc_hz, &mul, &shift);
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    return (uint64_t)((unsigned __int128)ticks * mul >> 32);
}

// The odd version that begins an update; continues from what the guest last saw.
static int begin_update(struct mem *mem, uint64_t gpa, uint32_t *version) {
    uint32_t v;
    int ret = mem_read(mem, GPA(gpa), &v, sizeof(v));

    if (ret < 0)
        return ret;
    v = (v + 1) | 1;
    *version = v;
    ret = mem_write(mem, GPA(gpa), &v, sizeof(v));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return ret;
}

static void end_update(struct mem *mem, uint64_t gpa, uint32_t version) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    version++;
    (void)mem_write(mem, GPA(gpa), &version, sizeof(version));
}

void kvmclock_update(const struct cpu_state *s, struct mem *mem, uint64_t tsc_hz) {
    uint64_t gpa = s->kvmclock_system_time & ~MSR_ENABLE;
    struct time_info t = {.tsc_timestamp = s->tsc_adjust, .flags = TSC_STABLE};

    if (!(s->kvmclock_system_time & MSR_ENABLE) || begin_update(mem, gpa, &t.version) < 0)
        return;
    kvmclock_scale(tsc_hz, &t.tsc_to_system_mul, &t.tsc_shift);
    if (mem_write(mem, GPA(gpa), &t, sizeof(t)) == 0) // with the odd version
        end_update(mem, gpa, t.version);
}

void kvmclock_update_wall(const struct cpu_state *s, struct mem *mem, uint64_t tsc_hz, uint64_t guest_tsc,
                          uint64_t realtime_ns) {
    uint64_t base = realtime_ns - kvmclock_ns(tsc_hz, guest_tsc - s->tsc_adjust);
    uint64_t gpa = s->kvmclock_wall;
    struct wall_clock w = {.sec = (uint32_t)(base / NSEC_PER_SEC), .nsec = (uint32_t)(base % NSEC_PER_SEC)};

    if (!gpa || begin_update(mem, gpa, &w.version) < 0)
        return;
    if (mem_write(mem, GPA(gpa), &w, sizeof(w)) == 0)
        end_update(mem, gpa, w.version);
}
