// SPDX-License-Identifier: Apache-2.0
// Stopping the world: a counted barrier for the vCPU threads.
//
// Invariants: stop_depth counts the reasons to stand still. A vCPU counts itself into vcpus_stopped under run_lock for
// as long as it stands at the barrier, also when a new stop begins before it has woken from the last one: so
// vcpus_stopped == threads with stop_depth > 0 means that none is in guest code or in a device. A vCPU that a debugger
// holds stands at the barrier while the others run.
#define LOG_UNIT "stop"
#include <time.h>

#include "core/machine_private.h"
#include "util/log.h"

#define REKICK_MS 100

static void kick_all(struct machine *m) {
    for (unsigned i = 0; m->vcpus && i < m->host.vcpus; i++)
        vcpu_kick(&m->vcpus[i]);
}

void stop_begin(struct machine *m) {
    pthread_mutex_lock(&m->run_lock);
    m->stop_depth++;
    pthread_mutex_unlock(&m->run_lock);
    kick_all(m); // after the count: who returns from run() must find it
}

// True when all stand; false after a time in which they should have.
static bool wait_some_time(struct machine *m) {
    struct timespec until;
    int ret = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += REKICK_MS * 1000000l;
    if (until.tv_nsec >= 1000000000l) {
        until.tv_nsec -= 1000000000l;
        until.tv_sec++;
    }
    pthread_mutex_lock(&m->run_lock);
    while (m->vcpus_stopped < m->threads && ret == 0)
        ret = pthread_cond_clockwait(&m->stopped_cond, &m->run_lock, CLOCK_MONOTONIC, &until);
    bool all = m->vcpus_stopped >= m->threads;
    pthread_mutex_unlock(&m->run_lock);
    return all;
}

void stop_wait(struct machine *m) {
    while (!wait_some_time(m)) {
        // A busy host, or an engine that lost a kick: asking again turns a hang into a delay.
        log_debug("vCPUs have not stopped after %d ms, kick again", REKICK_MS);
        kick_all(m);
    }
}

void stop_end(struct machine *m) {
    pthread_mutex_lock(&m->run_lock);
    if (m->stop_depth > 0 && --m->stop_depth == 0)
        pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
}

unsigned stop_depth(struct machine *m) {
    pthread_mutex_lock(&m->run_lock);
    unsigned depth = m->stop_depth;
    pthread_mutex_unlock(&m->run_lock);
    return depth;
}

void stop_quit(struct machine *m) {
    pthread_mutex_lock(&m->run_lock);
    m->quitting = true;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
    kick_all(m);
}

void vcpu_hold(struct vcpu *v, bool held) {
    pthread_mutex_lock(&v->machine->run_lock);
    v->held = held;
    pthread_mutex_unlock(&v->machine->run_lock);
}

// ---- calls on a vCPU's thread ----

struct vcpu_call {
    int (*fn)(void *ctx, struct error *err);
    void *ctx;
    struct error *err;
    int result;
    bool done; // under run_lock
};

int vcpu_call(struct vcpu *v, int (*fn)(void *ctx, struct error *err), void *ctx, struct error *err) {
    struct machine *m = v->machine;
    struct vcpu_call call = {.fn = fn, .ctx = ctx, .err = err};

    pthread_mutex_lock(&m->run_lock);
    v->call = &call;
    pthread_cond_broadcast(&m->run_cond);
    while (!call.done)
        pthread_cond_wait(&m->stopped_cond, &m->run_lock);
    pthread_mutex_unlock(&m->run_lock);
    return call.result;
}

// run_lock held; given up for the time of the call.
static void answer_call(struct vcpu *v) {
    struct machine *m = v->machine;
    struct vcpu_call *call = v->call;

    v->call = NULL;
    pthread_mutex_unlock(&m->run_lock);
    call->result = call->fn(call->ctx, call->err);
    pthread_mutex_lock(&m->run_lock);
    call->done = true;
    pthread_cond_broadcast(&m->stopped_cond);
}

// ---- the barrier ----

bool stop_barrier(struct vcpu *v) {
    struct machine *m = v->machine;

    pthread_mutex_lock(&m->run_lock);
    if ((m->stop_depth > 0 || v->held) && !m->quitting) {
        atomic_store(&v->phase, VCPU_STOPPED);
        m->vcpus_stopped++;
        pthread_cond_broadcast(&m->stopped_cond);
        while ((m->stop_depth > 0 || v->held) && !m->quitting) {
            if (v->call)
                answer_call(v);
            else
                pthread_cond_wait(&m->run_cond, &m->run_lock);
        }
        m->vcpus_stopped--;
    }
    bool go = !m->quitting;
    pthread_mutex_unlock(&m->run_lock);
    atomic_store(&v->phase, go ? VCPU_RUNNING : VCPU_STOPPED);
    return go;
}
