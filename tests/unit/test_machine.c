// SPDX-License-Identifier: Apache-2.0
// Machine life cycle on a stub engine: stop and go, wake-ups, resets, ends, failures during creation.
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/machine.h"

#define MS 1000000ull

// ---- the stub engine: run() calls `guest` until that reports something or a kick arrives ----

struct engine {
    unsigned live;
};

struct engine_vcpu {
    struct engine *e;
    unsigned index;
    atomic_bool kicked;
};

static struct engine the_engine;
static struct machine m;
static void (*guest)(struct engine_vcpu *v, struct vm_exit *exit); // leaves EXIT_NONE to go on
static unsigned fail_vcpu, fail_enter;
static atomic_uint runs;
static unsigned power_ons;

static int e_create(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                    struct error *err) {
    the_engine.live = 1;
    *e = &the_engine;
    return 0;
}
static void e_destroy(struct engine *e) {
    e->live--;
}
static int e_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out, struct error *err) {
    if (index == fail_vcpu)
        return error_set(err, -ENOMEM, "vCPU %u", index);
    *out = calloc(1, sizeof(**out));
    (*out)->e = e;
    (*out)->index = index;
    e->live++;
    return 0;
}
static void e_vcpu_destroy(struct engine_vcpu *v) {
    v->e->live--;
    free(v);
}
static int e_enter(struct engine_vcpu *v, struct error *err) {
    return v->index == fail_enter ? error_set(err, -EPERM, "enter") : 0;
}
static void e_run(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit) {
    assert(budget == BUDGET_UNLIMITED);
    exit->reason = EXIT_NONE;
    while (exit->reason == EXIT_NONE) {
        if (atomic_exchange(&v->kicked, false))
            exit->reason = EXIT_KICKED;
        else
            guest(v, exit);
    }
}
static void e_kick(struct engine_vcpu *v) {
    atomic_store(&v->kicked, true);
}
static void e_poke(struct engine_vcpu *v) {}

static const struct engine_ops stub_engine = {
    .name = "stub",
    .create = e_create,
    .destroy = e_destroy,
    .vcpu_create = e_vcpu_create,
    .vcpu_destroy = e_vcpu_destroy,
    .vcpu_enter_thread = e_enter,
    .run = e_run,
    .kick = e_kick,
    .poke = e_poke,
};

// ---- the stub board ----

static void on_halt(struct vcpu *v, struct vm_exit *exit) {
    vcpu_wait_for_interrupt(v);
}
static void on_shutdown(struct vcpu *v, struct vm_exit *exit) {
    machine_end(v->machine, MACHINE_CRASH);
}

static void (*const exits[EXIT_REASON_COUNT])(struct vcpu *v, struct vm_exit *exit) = {
    [EXIT_HALT] = on_halt,
    [EXIT_SHUTDOWN] = on_shutdown,
};

static int power_on(struct machine *machine, struct error *err) {
    power_ons++;
    if (guest)
        return 0;
    return error_set(err, -ENOENT, "no kernel");
}

static const struct machine_ops ops = {.exit_table = exits, .power_on = power_on};

static char trace[1024];
static void c_reset(void *ctx) {
    strcat(trace, "r");
}
static void c_pause(void *ctx) {
    strcat(trace, "p");
}
static void c_resume(void *ctx) {
    strcat(trace, "g");
}
static void c_destroy(void *ctx) {
    assert_int_equal(the_engine.live, m.host.vcpus + 1); // before the engine goes
    strcat(trace, "d");
}
static const struct component_ops comp = {
    .name = "c", .reset = c_reset, .pause = c_pause, .resume = c_resume, .destroy = c_destroy};

static int setup(void **state) {
    fail_vcpu = fail_enter = UINT_MAX;
    guest = NULL;
    power_ons = 0;
    atomic_store(&runs, 0);
    trace[0] = 0;
    return 0;
}

static void start(unsigned vcpus, void (*fn)(struct engine_vcpu *, struct vm_exit *)) {
    struct error err = {0};
    struct engine_options opt = {0};

    guest = fn;
    assert_int_equal(machine_init(&m, &err), 0);
    m.ops = &ops;
    m.host.vcpus = vcpus;
    assert_int_equal(component_add(&m.components, &comp, NULL, 0), 0);
    assert_int_equal(machine_create_vcpus(&m, &stub_engine, &opt, &err), 0);
    assert_int_equal(machine_start_threads(&m, &err), 0);
}

static void finish(enum machine_end want) {
    struct error err = {0};

    assert_int_equal(machine_run(&m, &err), want);
    assert_int_equal(err.code, 0);
    machine_destroy(&m);
    assert_int_equal(the_engine.live, 0);
}

// ---- tests ----

static void guest_spin(struct engine_vcpu *v, struct vm_exit *exit) {
    atomic_fetch_add(&runs, 1);
    sched_yield();
}

static void guest_halt(struct engine_vcpu *v, struct vm_exit *exit) {
    atomic_fetch_add(&runs, 1);
    exit->reason = EXIT_HALT;
}

static void guest_crash(struct engine_vcpu *v, struct vm_exit *exit) {
    exit->reason = EXIT_SHUTDOWN;
}
static void guest_odd_exit(struct engine_vcpu *v, struct vm_exit *exit) {
    exit->reason = 99;
}

static void test_end_by_guest(void **state) {
    start(1, guest_crash);
    usleep(3000);
    assert_int_equal(power_ons, 0); // the thread stands until machine_run
    finish(MACHINE_CRASH);
    assert_string_equal(trace, "rpd");
}

static void test_unknown_exit(void **state) {
    start(2, guest_odd_exit);
    finish(MACHINE_INTERNAL);
}

static void end_stopped(void *ctx) {
    machine_end(&m, MACHINE_STOPPED);
}

static void test_end_of_spinning_and_halted(void **state) {
    struct vtimer t;

    start(3, guest_spin);
    vtimer_init(&t, &m.clock, end_stopped, NULL);
    vtimer_arm(&t, 5 * MS);
    finish(MACHINE_STOPPED);
    assert_true(atomic_load(&runs) > 0);

    start(3, guest_halt);
    vtimer_init(&t, &m.clock, end_stopped, NULL);
    vtimer_arm(&t, 5 * MS);
    finish(MACHINE_STOPPED);
}

static void test_first_end_wins(void **state) {
    start(1, guest_spin);
    machine_end(&m, MACHINE_RUNNING); // no end at all
    machine_end(&m, MACHINE_POWEROFF);
    machine_end(&m, MACHINE_CRASH);
    finish(MACHINE_POWEROFF);
    assert_int_equal(atomic_load(&runs), 0);
}

static void pause_and_look(void *ctx) {
    machine_pause(&m);
    machine_pause(&m);
    unsigned before = atomic_load(&runs);
    uint64_t t = clock_now_ns(&m.clock);
    for (unsigned i = 0; i < m.host.vcpus; i++)
        assert_int_equal(atomic_load(&m.vcpus[i].phase), VCPU_STOPPED);
    machine_resume(&m);
    usleep(3000);
    assert_int_equal(atomic_load(&runs), before);
    assert_true(clock_now_ns(&m.clock) == t);
    machine_resume(&m);
    while (atomic_load(&runs) == before)
        usleep(100);
    // Resume and pause at once: a vCPU that has not woken yet still counts as stopped.
    for (int i = 0; i < 200; i++) {
        machine_pause(&m);
        machine_resume(&m);
    }
    machine_end(&m, MACHINE_STOPPED);
}

static void test_pause_nests(void **state) {
    start(2, guest_spin);
    event_post(m.loop, pause_and_look, NULL);
    finish(MACHINE_STOPPED);
    assert_memory_equal(trace, "rpgpg", 5);
}

// A wake-up that comes between the engine's last look and the wait must not be lost: ping-pong over a flag.
static atomic_bool irq_pending;
static unsigned pongs;
static struct event_timer watchdog;

static void ping(void *ctx) {
    atomic_store(&irq_pending, true);
    vcpu_wake(&m.vcpus[0]);
}

static void guest_pong(struct engine_vcpu *v, struct vm_exit *exit) {
    if (!atomic_exchange(&irq_pending, false)) {
        exit->reason = EXIT_HALT;
        return;
    }
    if (++pongs == 3000)
        machine_end(&m, MACHINE_POWEROFF);
    else
        event_post(m.loop, ping, NULL);
}

static void hang(void *ctx) {
    machine_end(&m, MACHINE_INTERNAL);
}

static void test_no_lost_wakeup(void **state) {
    pongs = 0;
    atomic_store(&irq_pending, false);
    start(1, guest_pong);
    event_timer_init(&watchdog, m.loop, hang, NULL);
    event_timer_arm(&watchdog, event_now_ns() + 20000 * MS);
    event_post(m.loop, ping, NULL);
    finish(MACHINE_POWEROFF);
    assert_int_equal(pongs, 3000);
}

// The same, made certain: the wake-up comes after the look and before the wait.
static void guest_late_irq(struct engine_vcpu *v, struct vm_exit *exit) {
    exit->reason = EXIT_HALT;
    if (atomic_fetch_add(&runs, 1) == 0)
        ping(NULL);
    else
        machine_end(&m, MACHINE_POWEROFF);
}

static void test_wakeup_before_wait(void **state) {
    start(1, guest_late_irq);
    event_timer_init(&watchdog, m.loop, hang, NULL);
    event_timer_arm(&watchdog, event_now_ns() + 5000 * MS);
    finish(MACHINE_POWEROFF);
}

// After its request the vCPU must not execute anything before the reset.
static atomic_uint after_request;
static void guest_reset_twice(struct engine_vcpu *v, struct vm_exit *exit) {
    static _Thread_local unsigned asked_at;

    if (v->index) {
        sched_yield();
        return;
    }
    if (power_ons == asked_at) {
        atomic_fetch_add(&after_request, 1);
    } else if (power_ons == 3) {
        machine_end(&m, MACHINE_POWEROFF);
    } else {
        asked_at = power_ons;
        machine_reset_request(&m);
        machine_reset_request(&m); // one reset
    }
}

static void test_reset(void **state) {
    atomic_store(&after_request, 0);
    start(2, guest_reset_twice);
    finish(MACHINE_POWEROFF);
    assert_int_equal(power_ons, 3);
    assert_int_equal(atomic_load(&after_request), 0);
    assert_string_equal(trace, "rprgprgpd");
}

static void guest_reset(struct engine_vcpu *v, struct vm_exit *exit) {
    machine_reset_request(&m);
}

static void test_no_reboot(void **state) {
    start(1, guest_reset);
    m.no_reboot = true;
    finish(MACHINE_RESET);
    assert_int_equal(power_ons, 1);
}

static void guest_signals(struct engine_vcpu *v, struct vm_exit *exit) {
    sigset_t now;

    pthread_sigmask(SIG_SETMASK, NULL, &now);
    bool good = sigismember(&now, SIGTERM) && sigismember(&now, SIGINT) && sigismember(&now, SIGPIPE) &&
                !sigismember(&now, SIGSEGV) && !sigismember(&now, SIGUSR1) && !sigismember(&now, SIGFPE);
    machine_end(&m, good ? MACHINE_POWEROFF : MACHINE_CRASH);
}

static void test_signal_mask(void **state) {
    sigset_t before, after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    start(1, guest_signals);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
    finish(MACHINE_POWEROFF);
}

static void test_power_on_failure(void **state) {
    struct error err = {0};

    start(1, NULL);
    assert_int_equal(machine_run(&m, &err), MACHINE_HOST_FAILURE);
    assert_int_equal(err.code, -ENOENT);
    machine_destroy(&m);
}

static void test_partial_creation(void **state) {
    struct engine_options opt = {0};
    struct error err = {0};

    assert_int_equal(machine_init(&m, &err), 0);
    machine_destroy(&m);

    assert_int_equal(machine_init(&m, &err), 0);
    assert_int_equal(machine_create_vcpus(&m, &stub_engine, &opt, &err), -EINVAL); // no vCPU
    m.host.vcpus = 100000;
    assert_int_equal(machine_create_vcpus(&m, &stub_engine, &opt, &err), -EINVAL);
    machine_destroy(&m);

    assert_int_equal(machine_init(&m, &err), 0);
    m.host.vcpus = 4;
    fail_vcpu = 2;
    assert_int_equal(machine_create_vcpus(&m, &stub_engine, &opt, &err), -ENOMEM);
    machine_destroy(&m);
    assert_int_equal(the_engine.live, 0);

    fail_vcpu = UINT_MAX;
    fail_enter = 1;
    assert_int_equal(machine_init(&m, &err), 0);
    m.host.vcpus = 3;
    assert_int_equal(machine_create_vcpus(&m, &stub_engine, &opt, &err), 0);
    assert_int_equal(machine_start_threads(&m, &err), -EPERM);
    assert_string_equal(err.text, "enter: Operation not permitted");
    machine_destroy(&m);
    assert_int_equal(the_engine.live, 0);
}

static void test_exit_names(void **state) {
    for (int i = 0; i < EXIT_REASON_COUNT; i++)
        assert_string_not_equal(exit_reason_name(i), "UNKNOWN");
    assert_string_equal(exit_reason_name(EXIT_WAIT_SIPI), "WAIT_SIPI");
    assert_string_equal(exit_reason_name(EXIT_REASON_COUNT), "UNKNOWN");
    assert_string_equal(exit_reason_name(-1), "UNKNOWN");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_end_by_guest, setup),
        cmocka_unit_test_setup(test_unknown_exit, setup),
        cmocka_unit_test_setup(test_end_of_spinning_and_halted, setup),
        cmocka_unit_test_setup(test_first_end_wins, setup),
        cmocka_unit_test_setup(test_pause_nests, setup),
        cmocka_unit_test_setup(test_no_lost_wakeup, setup),
        cmocka_unit_test_setup(test_wakeup_before_wait, setup),
        cmocka_unit_test_setup(test_reset, setup),
        cmocka_unit_test_setup(test_no_reboot, setup),
        cmocka_unit_test_setup(test_signal_mask, setup),
        cmocka_unit_test_setup(test_power_on_failure, setup),
        cmocka_unit_test_setup(test_partial_creation, setup),
        cmocka_unit_test(test_exit_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
