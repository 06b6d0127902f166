// SPDX-License-Identifier: Apache-2.0
// Save and load of the vCPUs.
//
// The guest's TSCs: saved is their value at the pause; after a load they stand until the machine goes on, as the
// machine's clock does. All vCPUs use one reading of the host's counter for each, so a restored guest finds its TSCs as
// far apart as they were (in general not at all).
#include "vmm/cpu_component.h"

#include <errno.h>
#include <stdlib.h>

#include "arch/x86/state_io.h"

#define TSC_HZ_TOLERANCE 1000 // frequencies that differ by less than a part in so many are one: they may be measured

struct cpu_set;

struct cpu_component {
    struct cpu_set *set;
    unsigned index;
};

// Loop thread only.
struct cpu_set {
    struct machine *machine;
    uint64_t tsc_hz;   // as the guest was told when it was booted
    uint64_t held_tsc; // of the host, when the machine stopped
    bool held;         // held_tsc is of the present stop
    bool loaded;       // the guest's counters go on from held_tsc: loaded since, or so asked for
    struct cpu_state *state;
    unsigned count;
    struct cpu_component cpus[];
};

static uint64_t hold(struct cpu_set *set) {
    if (!set->held)
        set->held_tsc = nondet_tsc(&set->machine->nondet);
    set->held = true;
    return set->held_tsc;
}

static int get(struct cpu_set *set, unsigned i) {
    struct machine *m = set->machine;
    return m->engine_ops->get_state(m->vcpus[i].engine, set->state, sizeof(*set->state));
}

static int put(struct cpu_set *set, unsigned i) {
    struct machine *m = set->machine;
    return m->engine_ops->set_state(m->vcpus[i].engine, set->state, sizeof(*set->state));
}

// ---- component ----

static void cpu_pause(void *ctx) {
    struct cpu_component *c = ctx;
    hold(c->set);
}

// The first goes for all. An engine that took a state takes it again with another counter.
static void cpu_resume(void *ctx) {
    struct cpu_component *c = ctx;
    struct cpu_set *set = c->set;
    if (c->index)
        return;
    uint64_t stood = nondet_tsc(&set->machine->nondet) - hold(set);
    for (unsigned i = 0; set->loaded && i < set->count; i++) {
        if (get(set, i))
            continue;
        set->state->tsc_offset -= stood;
        put(set, i);
    }
    set->held = set->loaded = false;
}

static void cpu_reset(void *ctx) {
    struct cpu_component *c = ctx;
    c->set->loaded = false; // the counters of a new life begin with it
    c->set->tsc_hz = c->set->machine->nondet.tsc_hz;
}

static void cpu_save(void *ctx, struct state_writer *w) {
    struct cpu_component *c = ctx;
    struct cpu_set *set = c->set;
    if (get(set, c->index)) {
        w->error = -EIO;
        return;
    }
    state_put_u64(w, set->tsc_hz);
    x86_state_save(set->state, hold(set), w);
}

static bool same_frequency(uint64_t a, uint64_t b) {
    uint64_t diff = a > b ? a - b : b - a;
    return diff <= b / TSC_HZ_TOLERANCE;
}

static int cpu_load(void *ctx, struct state_reader *r, struct error *err) {
    struct cpu_component *c = ctx;
    struct cpu_set *set = c->set;
    struct machine *m = set->machine;
    uint64_t hz = state_get_u64(r);
    int ret = x86_state_load(set->state, hold(set), m->host.cpu_policy, r, err);
    if (ret)
        return ret;
    if (!same_frequency(hz, m->nondet.tsc_hz))
        return error_set(err, -EINVAL, "saved vCPU %u has a TSC of %llu Hz, this host's is %llu Hz", c->index,
                         (unsigned long long)hz, (unsigned long long)m->nondet.tsc_hz);
    ret = put(set, c->index);
    if (ret)
        return error_set(err, ret, "the %s engine refuses the saved state of vCPU %u", m->engine_ops->name, c->index);
    set->tsc_hz = hz;
    set->loaded = true;
    return 0;
}

// Destroyed in reverse order: the first component is the last to need the set.
static void cpu_destroy(void *ctx) {
    struct cpu_component *c = ctx;
    if (c->index)
        return;
    free(c->set->state);
    free(c->set);
}

static const struct component_ops cpu_ops = {
    .name = "cpu",
    .version = X86_STATE_VERSION,
    .of_engine = true,
    .reset = cpu_reset,
    .pause = cpu_pause,
    .resume = cpu_resume,
    .save = cpu_save,
    .load = cpu_load,
    .destroy = cpu_destroy,
};

int cpu_component_add(struct machine *m, unsigned vcpus, struct error *err) {
    struct cpu_set *set = calloc(1, sizeof(*set) + vcpus * sizeof(set->cpus[0]));
    int ret = set && (set->state = aligned_alloc(64, sizeof(*set->state))) ? 0 : -ENOMEM;
    if (ret == 0) {
        set->machine = m;
        set->tsc_hz = m->nondet.tsc_hz;
        set->count = vcpus;
    }
    for (unsigned i = 0; ret == 0 && i < vcpus; i++) {
        set->cpus[i] = (struct cpu_component){.set = set, .index = i};
        ret = component_add(&m->components, &cpu_ops, &set->cpus[i], i);
        if (ret && i) // the set belongs to the machine by now
            return error_set(err, ret, "register vCPU %u", i);
    }
    if (ret == 0)
        return 0;
    free(set ? set->state : NULL);
    free(set);
    return error_set(err, ret, "register the vCPUs");
}

static struct cpu_set *find_set(struct machine *m) {
    for (const struct component *c = m->components.head; c; c = c->next)
        if (c->ops == &cpu_ops)
            return ((struct cpu_component *)c->ctx)->set;
    return NULL;
}

void cpu_component_set_clock(struct machine *m, bool jump) {
    struct cpu_set *set = find_set(m);
    if (!set || !set->held)
        return;
    if (!jump) {
        set->loaded = true; // as after a load: the TSCs go on from held_tsc
        return;
    }
    uint64_t ticks = nondet_tsc(&m->nondet) - set->held_tsc;
    uint64_t ns = (uint64_t)((unsigned __int128)ticks * 1000000000u / m->nondet.tsc_hz);
    clock_set(&m->clock, clock_now_ns(&m->clock) + ns);
}

int cpu_component_advance(struct machine *m, uint64_t ns, struct error *err) {
    uint64_t ticks = (uint64_t)((unsigned __int128)ns * m->nondet.tsc_hz / 1000000000u);
    struct cpu_state *state = aligned_alloc(64, sizeof(*state));
    int ret = state ? 0 : -ENOMEM;
    clock_set(&m->clock, clock_now_ns(&m->clock) + ns);
    for (unsigned i = 0; ret == 0 && i < m->host.vcpus; i++) {
        struct engine_vcpu *v = m->vcpus[i].engine;
        ret = m->engine_ops->get_state(v, state, sizeof(*state));
        state->tsc_offset += ticks;
        if (ret == 0)
            ret = m->engine_ops->set_state(v, state, sizeof(*state));
    }
    free(state);
    return ret ? error_set(err, ret, "advance the guest's clocks") : 0;
}
