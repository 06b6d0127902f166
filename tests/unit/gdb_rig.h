// SPDX-License-Identifier: Apache-2.0
// A gdb session on a machine with a stub engine and no threads, for test_gdb.c and fuzz_gdb.c. The engine keeps two
// states, notes points and steps, and runs nothing: "the vCPU stops" is a call of the machine's debugger hook.
#ifndef GDB_RIG_H
#define GDB_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "debug/gdb.h"

#define RIG_VCPUS 2
#define RIG_RAM   0x10000u

struct engine_vcpu {
    struct cpu_state state;
    enum debug_step step;
};

static struct {
    struct machine m;
    struct cpuid_policy policy;
    struct gdb_session *session;
    struct engine_vcpu cpu[RIG_VCPUS];
    struct debug_point points[8]; // a small engine: more are -ENOSPC
    unsigned npoints;
    bool read_watch; // or -EOPNOTSUPP
    char sent[65536];
    size_t nsent;
    bool closed;
} rig;

static int rig_create(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                      struct error *err) {
    *e = (struct engine *)&rig;
    return 0;
}
static void rig_destroy(struct engine *e) {}
static int rig_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err) {
    *v = &rig.cpu[index];
    x86_state_reset(&rig.cpu[index].state, index == 0, false);
    return 0;
}
static void rig_vcpu_destroy(struct engine_vcpu *v) {}
static void rig_run(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit) {}
static void rig_kick(struct engine_vcpu *v) {}
static int rig_get_state(struct engine_vcpu *v, void *state, size_t size) {
    memcpy(state, &v->state, size);
    return 0;
}
static int rig_set_state(struct engine_vcpu *v, const void *state, size_t size) {
    memcpy(&v->state, state, size);
    return 0;
}
static int rig_debug_points(struct engine *e, const struct debug_point *points, unsigned count) {
    if (count > sizeof(rig.points) / sizeof(rig.points[0]))
        return -ENOSPC;
    for (unsigned i = 0; i < count; i++)
        if (points[i].kind == DEBUG_READ && !rig.read_watch)
            return -EOPNOTSUPP;
    if (count)
        memcpy(rig.points, points, count * sizeof(*points));
    rig.npoints = count;
    return 0;
}
static void rig_debug_step(struct engine_vcpu *v, enum debug_step step) {
    v->step = step;
}
static int rig_power_on(struct machine *m, struct error *err) {
    return 0;
}

static const struct engine_ops rig_engine = {.name = "stub",
                                             .create = rig_create,
                                             .destroy = rig_destroy,
                                             .vcpu_create = rig_vcpu_create,
                                             .vcpu_destroy = rig_vcpu_destroy,
                                             .run = rig_run,
                                             .kick = rig_kick,
                                             .poke = rig_kick,
                                             .get_state = rig_get_state,
                                             .set_state = rig_set_state,
                                             .debug_points = rig_debug_points,
                                             .debug_step = rig_debug_step};

static void rig_send(void *ctx, const char *bytes, size_t len) {
    if (len > sizeof(rig.sent) - 1 - rig.nsent)
        abort(); // the tests and the fuzzer take every answer away
    memcpy(rig.sent + rig.nsent, bytes, len);
    rig.nsent += len;
    rig.sent[rig.nsent] = 0;
}
static void rig_close(void *ctx) {
    rig.closed = true;
}

// 0, or whatever went wrong.
static int rig_open(void) {
    static const struct machine_ops ops = {.power_on = rig_power_on};
    struct gdb_io io = {.send = rig_send, .close = rig_close};
    struct error err = {0};
    memset(&rig, 0, sizeof(rig));
    if (machine_init(&rig.m, &err) || mem_add_ram(rig.m.mem, GPA(0), RIG_RAM, "ram", &err))
        return -1;
    rig.policy = (struct cpuid_policy){.phys_bits = 40, .has_avx = true, .has_xsave = true, .has_fsgsbase = true};
    rig.m.ops = &ops;
    rig.m.host.vcpus = RIG_VCPUS;
    rig.m.host.cpu_policy = &rig.policy;
    if (machine_create_vcpus(&rig.m, &rig_engine, NULL, &err) || gdb_session_create(&rig.m, &io, &rig.session, &err))
        return -1;
    machine_resume(&rig.m); // as machine_run would
    gdb_session_begin(rig.session);
    return 0;
}

__attribute__((unused)) static void rig_shut(void) {
    gdb_session_end(rig.session);
    gdb_session_destroy(rig.session);
    machine_destroy(&rig.m);
}

#endif
