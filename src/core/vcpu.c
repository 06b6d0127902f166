// SPDX-License-Identifier: Apache-2.0
// One vCPU: its thread, its exits, its sleep.
//
// Invariants: `wake` is set before the engine is told and cleared only by a wait that returns, so an interrupt that
// arrives between the engine's last look at the irqchip and the wait is never lost; a wake too many only makes the
// engine look once more.
//
// The sleep is a futex and not a condition variable: a guest that waits for a device sleeps tens of thousands of times
// a second, and this is two system calls a time instead of five.
#define LOG_UNIT "vcpu"
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/machine_private.h"
#include "util/log.h"
#include "util/thread.h"

// ---- sleep and wake ----

// Values of vcpu.wake. Only the vCPU's thread leaves WAKE_SET, and only it enters WAKE_AWAITED.
enum { WAKE_NONE, WAKE_SET, WAKE_AWAITED };

static void set_wake(struct vcpu *v) {
    if (atomic_exchange(&v->wake, WAKE_SET) == WAKE_AWAITED)
        syscall(SYS_futex, &v->wake, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void vcpu_wake(struct vcpu *v) {
    set_wake(v);
    // Also when wake was set already: it may stem from before the vCPU went on, and it does not look at it then.
    v->machine->engine_ops->poke(v->engine);
}

void vcpu_kick(struct vcpu *v) {
    if (!v->engine)
        return;
    set_wake(v);
    v->machine->engine_ops->kick(v->engine);
}

void vcpu_wait_for_interrupt(struct vcpu *v) {
    int none = WAKE_NONE;
    if (atomic_compare_exchange_strong(&v->wake, &none, WAKE_AWAITED)) {
        atomic_store(&v->phase, VCPU_HALTED);
        while (atomic_load(&v->wake) == WAKE_AWAITED)
            syscall(SYS_futex, &v->wake, FUTEX_WAIT_PRIVATE, WAKE_AWAITED, NULL, NULL, 0);
        atomic_store(&v->phase, VCPU_RUNNING);
    }
    atomic_store(&v->wake, WAKE_NONE);
}

// ---- thread ----

static void dispatch_exit(struct vcpu *v, struct vm_exit *exit) {
    if (exit->reason == EXIT_KICKED)
        return;
    if ((unsigned)exit->reason < EXIT_REASON_COUNT && v->machine->ops->exit_table[exit->reason]) {
        v->machine->ops->exit_table[exit->reason](v, exit);
        return;
    }
    log_error("vCPU %u: no handler for exit %s (%d)", v->index, exit_reason_name(exit->reason), (int)exit->reason);
    machine_end(v->machine, MACHINE_INTERNAL);
}

static void run_until_quit(struct vcpu *v) {
    struct vm_exit exit;

    while (stop_barrier(v)) {
        exit.reason = EXIT_NONE;
        v->machine->engine_ops->run(v->engine, BUDGET_UNLIMITED, &exit);
        dispatch_exit(v, &exit);
    }
}

// The thread was created with all signals blocked. Open are those that an engine gives a meaning: faults of
// translated code, and the kick. Everything else goes to the main thread.
static void open_engine_signals(void) {
    static const int wanted[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGUSR1};
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_LEN(wanted); i++)
        sigaddset(&set, wanted[i]);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void *vcpu_thread(void *arg) {
    struct vcpu *v = arg;
    const struct engine_ops *ops = v->machine->engine_ops;
    char name[16];

    snprintf(name, sizeof(name), "vcpu%u", v->index);
    pthread_setname_np(pthread_self(), name);
    open_engine_signals();
    int ret = ops->vcpu_enter_thread ? ops->vcpu_enter_thread(v->engine, v->start_err) : 0;
    pthread_mutex_lock(&v->lock);
    v->start_result = ret > 0 ? -EIO : ret;
    pthread_cond_broadcast(&v->cond);
    pthread_mutex_unlock(&v->lock);
    if (ret == 0)
        run_until_quit(v);
    return NULL;
}

int vcpu_start_thread(struct vcpu *v, struct error *err) {
    v->start_result = 1;
    v->start_err = err;
    int ret = thread_start(&v->thread, vcpu_thread, v);
    if (ret)
        return error_set(err, ret, "create thread of vCPU %u", v->index);
    v->thread_started = true;
    pthread_mutex_lock(&v->lock);
    while (v->start_result > 0)
        pthread_cond_wait(&v->cond, &v->lock);
    ret = v->start_result;
    v->start_err = NULL; // the caller's error does not live longer
    pthread_mutex_unlock(&v->lock);
    return ret;
}

void vcpu_join_thread(struct vcpu *v) {
    if (!v->thread_started)
        return;
    pthread_join(v->thread, NULL);
    v->thread_started = false;
}

// ---- life ----

int vcpu_init(struct vcpu *v, struct machine *m, unsigned index, struct error *err) {
    v->machine = m;
    v->index = index;
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->cond, NULL);
    int ret = m->engine_ops->vcpu_create(m->engine, index, &v->engine, err);
    if (ret)
        v->engine = NULL;
    return ret;
}

void vcpu_fini(struct vcpu *v) {
    if (!v->machine)
        return;
    if (v->engine)
        v->machine->engine_ops->vcpu_destroy(v->engine);
    pthread_cond_destroy(&v->cond);
    pthread_mutex_destroy(&v->lock);
    *v = (struct vcpu){0};
}
