// SPDX-License-Identifier: Apache-2.0
// The debugger's side of a machine: stops, events, points. Registers and memory are in target_state.c.
//
// Invariants: `stopped` is one machine_pause of ours. A vCPU that meets an event begins the pause on its own thread and
// posts stop_on_loop, once for all vCPUs that do so before it has run. So the events are read with all vCPUs standing,
// and between the begin and its post nobody else's debug_resume can let the vCPU pass.
#define LOG_UNIT "debug"
#include <errno.h>
#include <stdlib.h>

#include "debug/target_private.h"
#include "util/log.h"

// ---- events ----

static bool is_breakpoint(enum debug_kind kind) {
    return kind == DEBUG_SOFT || kind == DEBUG_EXEC;
}

static bool point_is_set(const struct debug_target *t, enum debug_kind kind, uint64_t addr) {
    for (unsigned i = 0; i < t->npoints; i++)
        if (t->points[i].kind == kind && t->points[i].addr == addr)
            return true;
    return false;
}

// A breakpoint that waits is forgotten when its vCPU goes on: it will be met again, if it is still there. What has
// happened already must be told, unless nobody wants to know any more.
static bool still_matters(const struct debug_target *t, const struct debug_event *e, bool going_on) {
    if (is_breakpoint(e->kind))
        return !going_on;
    return e->kind == DEBUG_STEPPED || point_is_set(t, e->kind, e->addr);
}

// Tells the client of one event that it does not know yet. going_on: only of vCPUs that are to run.
static bool report_one(struct debug_target *t, bool going_on) {
    for (unsigned i = 0; i < t->nvcpus; i++) {
        struct debug_vcpu *v = &t->vcpu[i];
        if (!v->has_event || (going_on && v->action == DEBUG_HOLD))
            continue;
        v->has_event = false;
        if (!still_matters(t, &v->event, going_on))
            continue;
        t->client.stopped(t->client.ctx, &v->event);
        return true;
    }
    return false;
}

static void stop_on_loop(void *ctx) {
    struct debug_target *t = ctx;
    machine_pause_finish(t->machine);
    atomic_store(&t->stop_posted, false); // the next event can only come after the machine goes on
    if (t->stopped) {                     // for another reason meanwhile: what waits is told when it is to go on
        machine_resume(t->machine);
        return;
    }
    t->stopped = true;
    if (!t->attached) // gone meanwhile
        debug_detach(t);
    else if (!report_one(t, false))
        debug_resume(t);
}

// On the vCPU's thread. What is written to `event` is read after stop_wait, which takes the machine's lock.
static void vcpu_stopped(void *ctx, struct vcpu *v, const struct vm_exit *exit) {
    struct debug_target *t = ctx;
    struct debug_vcpu *d = &t->vcpu[v->index];
    d->event = (struct debug_event){.vcpu = v->index, .kind = exit->debug.kind, .addr = exit->debug.addr};
    d->has_event = true;
    if (atomic_exchange(&t->stop_posted, true))
        return;
    machine_pause_begin(t->machine);
    if (event_post(t->machine->loop, stop_on_loop, t)) {
        log_error("out of memory");
        machine_end(t->machine, MACHINE_HOST_FAILURE);
    }
}

// ---- life ----

int debug_target_create(struct machine *m, const struct debug_client *client, struct debug_target **target,
                        struct error *err) {
    if (!m->engine_ops->debug_points || !m->engine_ops->debug_step)
        return error_set(err, -EOPNOTSUPP, "debug a machine on engine %s", m->engine_ops->name);
    struct debug_target *t = calloc(1, sizeof(*t) + m->host.vcpus * sizeof(t->vcpu[0]));
    if (!t)
        return error_set(err, -ENOMEM, "debugger");
    t->machine = m;
    t->client = *client;
    t->nvcpus = m->host.vcpus;
    t->mask_interrupts = true;
    t->points = calloc(DEBUG_POINTS_MAX, sizeof(*t->points));
    for (unsigned i = 0; t->points && i < t->nvcpus; i++)
        if (!(t->vcpu[i].state = aligned_alloc(64, sizeof(struct cpu_state))))
            break;
    if (!t->points || !t->vcpu[t->nvcpus - 1].state) {
        debug_target_destroy(t);
        return error_set(err, -ENOMEM, "debugger");
    }
    m->debugger = (struct machine_debugger){.stopped = vcpu_stopped, .ctx = t};
    *target = t;
    return 0;
}

void debug_target_destroy(struct debug_target *t) {
    if (!t)
        return;
    t->machine->debugger = (struct machine_debugger){0};
    for (unsigned i = 0; i < t->nvcpus; i++)
        free(t->vcpu[i].state);
    free(t->points);
    free(t);
}

unsigned debug_vcpus(const struct debug_target *t) {
    return t->nvcpus;
}

bool debug_running(const struct debug_target *t) {
    return !t->stopped;
}

// ---- stop and go ----

void debug_stop(struct debug_target *t) {
    t->attached = true;
    if (t->stopped)
        return;
    machine_pause(t->machine);
    t->stopped = true;
}

void debug_set_action(struct debug_target *t, unsigned vcpu, enum debug_action action) {
    t->vcpu[vcpu].action = action;
}

void debug_mask_interrupts(struct debug_target *t, bool mask) {
    t->mask_interrupts = mask;
}

bool debug_masks_interrupts(const struct debug_target *t) {
    return t->mask_interrupts;
}

static enum debug_step step_of(const struct debug_target *t, enum debug_action action) {
    if (action != DEBUG_STEP_ONE)
        return DEBUG_RUN;
    return t->mask_interrupts ? DEBUG_STEP_MASKED : DEBUG_STEP;
}

static void go_on(struct debug_target *t) {
    struct machine *m = t->machine;
    for (unsigned i = 0; i < t->nvcpus; i++) {
        struct debug_vcpu *v = &t->vcpu[i];
        enum debug_step step = step_of(t, v->action);
        debug_flush_state(t, i);
        if (step != v->step)
            m->engine_ops->debug_step(m->vcpus[i].engine, step);
        v->step = step;
        vcpu_hold(&m->vcpus[i], v->action == DEBUG_HOLD);
    }
    t->stopped = false;
    machine_resume(m);
}

void debug_resume(struct debug_target *t) {
    if (t->stopped && !report_one(t, true))
        go_on(t);
}

void debug_detach(struct debug_target *t) {
    t->attached = false;
    if (t->npoints && t->machine->engine_ops->debug_points(t->machine->engine, NULL, 0))
        log_warn("points could not be removed");
    t->npoints = 0;
    for (unsigned i = 0; i < t->nvcpus; i++) {
        t->vcpu[i].action = DEBUG_CONTINUE;
        t->vcpu[i].has_event = false;
    }
    if (t->stopped)
        go_on(t);
}

void debug_reset(struct debug_target *t) {
    debug_forget_states(t);
    machine_reset_request(t->machine);
}

// ---- points ----

static int apply(struct debug_target *t, unsigned count) {
    int ret = t->machine->engine_ops->debug_points(t->machine->engine, t->points, count);
    if (ret == 0)
        t->npoints = count;
    return ret;
}

static unsigned find_point(const struct debug_target *t, enum debug_kind kind, uint64_t addr, uint64_t len) {
    unsigned i = 0;
    while (i < t->npoints && (t->points[i].kind != kind || t->points[i].addr != addr || t->points[i].len != len))
        i++;
    return i;
}

int debug_add_point(struct debug_target *t, unsigned vcpu, enum debug_kind kind, uint64_t addr, uint64_t len) {
    if (is_breakpoint(kind))
        len = 1;
    if (len < 1 || addr + (len - 1) < addr)
        return -EINVAL;
    if (find_point(t, kind, addr, len) < t->npoints)
        return 0;
    if (t->npoints == DEBUG_POINTS_MAX)
        return -ENOSPC;
    struct debug_point *p = &t->points[t->npoints];
    *p = (struct debug_point){.kind = kind, .addr = addr, .len = len};
    if (debug_translate(t, vcpu, addr, &p->gpa))
        p->gpa = DEBUG_UNMAPPED;
    return apply(t, t->npoints + 1);
}

int debug_remove_point(struct debug_target *t, enum debug_kind kind, uint64_t addr, uint64_t len) {
    unsigned at = find_point(t, kind, addr, is_breakpoint(kind) ? 1 : len);
    if (at == t->npoints)
        return 0;
    struct debug_point removed = t->points[at], last = t->points[t->npoints - 1];
    t->points[at] = last;
    int ret = apply(t, t->npoints - 1);
    if (ret) { // as before
        t->points[t->npoints - 1] = last;
        t->points[at] = removed;
    }
    return ret;
}
