// SPDX-License-Identifier: Apache-2.0
// Life cycle of a machine: init, vCPUs, run, reset, pause, end, destroy.
//
// Invariants: stop_depth starts at 1 (the machine not yet run), so threads created in phase "open" stand at the
// barrier until machine_run. The first machine_end adds a stop that is never taken back: after the end no vCPU executes
// guest code, and memory and vCPU state stay as they were for whoever wants to look.
#define LOG_UNIT "machine"
#include "core/machine.h"

#include <errno.h>
#include <stdlib.h>

#include "core/machine_private.h"
#include "util/log.h"

#define MACHINE_MAX_VCPUS 256 // 8-bit xAPIC IDs (Intel SDM 3A 11.4.6)

int machine_init(struct machine *m, struct error *err) {
    *m = (struct machine){.stop_depth = 1};
    pthread_mutex_init(&m->run_lock, NULL);
    pthread_cond_init(&m->run_cond, NULL);
    pthread_cond_init(&m->stopped_cond, NULL);
    component_list_init(&m->components);
    irq_router_init(&m->irq);
    nondet_init_live(&m->nondet);
    int ret = mem_create(&m->mem, err);
    if (ret)
        return ret;
    ret = event_loop_create(&m->loop, err);
    if (ret)
        return ret;
    ret = clock_init(&m->clock, &m->nondet, m->loop);
    if (!ret)
        ret = component_add(&m->components, &clock_component_ops, &m->clock, 0);
    if (ret)
        return error_set(err, ret, "create machine clock");
    m->host.mem = m->mem;
    m->host.nondet = &m->nondet;
    m->host.clock = &m->clock;
    return 0;
}

int machine_create_vcpus(struct machine *m, const struct engine_ops *ops, const struct engine_options *opt,
                         struct error *err) {
    int ret;

    if (m->host.vcpus < 1 || m->host.vcpus > MACHINE_MAX_VCPUS)
        return error_set(err, -EINVAL, "number of vCPUs must be 1 to %d", MACHINE_MAX_VCPUS);
    m->engine_ops = ops;
    ret = ops->create(&m->host, opt, &m->engine, err);
    if (ret) {
        m->engine = NULL;
        return ret;
    }
    m->vcpus = calloc(m->host.vcpus, sizeof(*m->vcpus));
    if (!m->vcpus)
        return error_set(err, -ENOMEM, "create vCPUs");
    for (unsigned i = 0; i < m->host.vcpus; i++) {
        ret = vcpu_init(&m->vcpus[i], m, i, err);
        if (ret)
            return ret;
    }
    return 0;
}

int machine_start_threads(struct machine *m, struct error *err) {
    for (unsigned i = 0; i < m->host.vcpus; i++) {
        int ret = vcpu_start_thread(&m->vcpus[i], err);
        if (ret)
            return ret;
        m->threads++;
    }
    return 0;
}

// ---- pause and resume ----

// The clock first: it should stand at the moment when the vCPUs do, and a device may take its time over I/O in flight.
static void devices_quiesce(struct machine *m) {
    clock_pause(&m->clock);
    if (m->quiesced)
        return;
    component_pause_all(&m->components);
    m->quiesced = true;
}

static void devices_go(struct machine *m) {
    if (m->quiesced)
        component_resume_all(&m->components);
    m->quiesced = false;
    clock_resume(&m->clock);
}

void machine_pause_begin(struct machine *m) {
    stop_begin(m);
}

// After a stop_begin, here or on another thread.
void machine_pause_finish(struct machine *m) {
    stop_wait(m);
    devices_quiesce(m);
}

void machine_pause(struct machine *m) {
    stop_begin(m);
    machine_pause_finish(m);
}

void machine_stop_vcpus(struct machine *m) {
    stop_begin(m);
    stop_wait(m);
}

void machine_resume(struct machine *m) {
    // The last reason, and it is ours: nobody else ends a stop, and a new one that begins meanwhile pauses anew.
    if (stop_depth(m) == 1)
        devices_go(m);
    stop_end(m);
}

// ---- end and reset ----

void machine_end(struct machine *m, enum machine_end end) {
    int running = MACHINE_RUNNING;

    if (end == MACHINE_RUNNING || !atomic_compare_exchange_strong(&m->end, &running, (int)end))
        return;
    stop_begin(m);
    event_loop_quit(m->loop, (int)end);
}

static int power_on(struct machine *m, struct error *err) {
    component_reset_all(&m->components);
    return m->ops->power_on(m, err);
}

// The loop's part of a reset; the requester has begun the stop.
static void reset_on_loop(void *ctx) {
    struct machine *m = ctx;
    struct error err = {0};

    machine_pause_finish(m);
    // vCPUs stand: the next request can only come after this reset.
    atomic_store(&m->reset_pending, false);
    if (atomic_load(&m->end) == MACHINE_RUNNING && power_on(m, &err)) {
        log_error("reset: %s", err.text);
        machine_end(m, MACHINE_HOST_FAILURE);
    }
    machine_resume(m);
}

void machine_reset_request(struct machine *m) {
    if (m->no_reboot) {
        machine_end(m, MACHINE_RESET);
        return;
    }
    if (atomic_exchange(&m->reset_pending, true))
        return;
    // The stop begins here, so that a guest that asked for a reset does not go on and try the next way to reset.
    stop_begin(m);
    if (event_post(m->loop, reset_on_loop, m)) {
        log_error("reset: out of memory");
        machine_end(m, MACHINE_HOST_FAILURE);
    }
}

// ---- run and destroy ----

static enum machine_end run_loop(struct machine *m) {
    event_loop_run(m->loop);
    machine_end(m, MACHINE_HOST_FAILURE); // unless someone has ended it, the loop itself failed
    machine_pause_finish(m);
    return (enum machine_end)atomic_load(&m->end);
}

enum machine_end machine_run(struct machine *m, struct error *err) {
    if (power_on(m, err)) {
        machine_end(m, MACHINE_HOST_FAILURE);
        return MACHINE_HOST_FAILURE;
    }
    machine_resume(m);
    return run_loop(m);
}

enum machine_end machine_run_incoming(struct machine *m) {
    component_reset_all(&m->components);
    devices_quiesce(m);
    return run_loop(m);
}

static void vcpus_destroy(struct machine *m) {
    for (unsigned i = 0; m->vcpus && i < m->host.vcpus; i++)
        vcpu_fini(&m->vcpus[i]);
    free(m->vcpus);
    m->vcpus = NULL;
    if (m->engine)
        m->engine_ops->destroy(m->engine);
    m->engine = NULL;
}

void machine_destroy(struct machine *m) {
    stop_quit(m);
    for (unsigned i = 0; m->vcpus && i < m->host.vcpus; i++)
        vcpu_join_thread(&m->vcpus[i]);
    component_destroy_all(&m->components);
    vcpus_destroy(m);
    clock_destroy(&m->clock);
    event_loop_destroy(m->loop);
    m->loop = NULL;
    mem_destroy(m->mem);
    m->mem = NULL;
    pthread_cond_destroy(&m->stopped_cond);
    pthread_cond_destroy(&m->run_cond);
    pthread_mutex_destroy(&m->run_lock);
}
