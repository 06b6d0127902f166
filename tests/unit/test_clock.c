// SPDX-License-Identifier: Apache-2.0
// Virtual time with a door of our own: pause, resume, set, save and load, timers over a pause.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/clock.h"

#define MS 1000000ull

static uint64_t fake_ns;
static uint64_t fake_monotonic(void *ctx) {
    return fake_ns;
}
static const struct nondet_ops fake_ops = {.monotonic_ns = fake_monotonic, .realtime_ns = fake_monotonic};

static void test_pause_and_resume(void **state) {
    struct nondet nd = {.ops = &fake_ops};
    struct clock c;

    fake_ns = 1000000;
    assert_int_equal(clock_init(&c, &nd, NULL), 0);
    assert_int_equal(clock_now_ns(&c), 0);
    fake_ns += 50;
    assert_int_equal(clock_now_ns(&c), 0); // starts paused
    clock_resume(&c);
    fake_ns += 100;
    clock_resume(&c); // idempotent
    assert_int_equal(clock_now_ns(&c), 100);
    clock_pause(&c);
    fake_ns += 1000;
    clock_pause(&c);
    assert_int_equal(clock_now_ns(&c), 100);
    clock_resume(&c);
    fake_ns += 5;
    assert_int_equal(clock_now_ns(&c), 105);
    clock_set(&c, 7); // running: refused
    assert_int_equal(clock_now_ns(&c), 105);
    clock_pause(&c);
    clock_set(&c, 1ull << 50); // later than the host's own time
    clock_resume(&c);
    fake_ns += 1;
    assert_int_equal(clock_now_ns(&c), (1ull << 50) + 1);
    clock_destroy(&c);
    clock_destroy(&c);
}

static void test_save_load(void **state) {
    struct nondet nd = {.ops = &fake_ops};
    struct clock a, b;
    struct state_writer w = {0};
    struct error err = {0};

    clock_init(&a, &nd, NULL);
    clock_init(&b, &nd, NULL);
    clock_set(&a, 4711);
    clock_component_ops.save(&a, &w);
    struct state_reader r = {.buf = w.buf, .len = w.len};
    assert_int_equal(clock_component_ops.load(&b, &r, &err), 0);
    assert_int_equal(clock_now_ns(&b), 4711);
    assert_int_equal(r.pos, r.len);
    struct state_reader cut = {.buf = w.buf, .len = w.len - 1};
    assert_true(clock_component_ops.load(&b, &cut, &err) < 0);
    memset(w.buf, 0xff, w.len);
    struct state_reader bad = {.buf = w.buf, .len = w.len};
    assert_true(clock_component_ops.load(&b, &bad, &err) < 0);
    assert_int_equal(clock_now_ns(&b), 4711);
    state_writer_free(&w);
    clock_destroy(&a);
    clock_destroy(&b);
}

// ---- timers, on the live clock ----

static struct event_loop *loop;
static struct nondet live;
static char trace[32];

static void note(void *ctx) {
    strcat(trace, ctx);
}
static void quit(void *ctx) {
    event_loop_quit(loop, 0);
}

static int setup(void **state) {
    struct error err;

    trace[0] = 0;
    nondet_init_live(&live);
    return event_loop_create(&loop, &err);
}

static int teardown(void **state) {
    event_loop_destroy(loop);
    return 0;
}

static void run_for_ms(unsigned ms) {
    struct event_timer t;

    event_timer_init(&t, loop, quit, NULL);
    event_timer_arm(&t, event_now_ns() + ms * MS);
    event_loop_run(loop);
}

static void test_timer_stands_while_paused(void **state) {
    struct clock c;
    struct vtimer t, u, gone;

    clock_init(&c, &live, loop);
    vtimer_init(&t, &c, note, "t");
    vtimer_init(&u, &c, note, "u");
    vtimer_init(&gone, &c, note, "gone");
    vtimer_arm(&t, 4 * MS); // armed while paused
    vtimer_arm(&gone, 1 * MS);
    run_for_ms(10);
    assert_string_equal(trace, "");
    vtimer_fini(&gone);
    clock_resume(&c);
    vtimer_arm(&u, 100000 * MS);
    assert_int_equal(vtimer_deadline(&t), 4 * MS);
    clock_pause(&c); // before it is due
    usleep(10000);
    run_for_ms(1);
    assert_string_equal(trace, "");
    clock_resume(&c);
    run_for_ms(20);
    assert_string_equal(trace, "t");
    assert_int_equal(vtimer_deadline(&t), UINT64_MAX);
    vtimer_arm(&u, 0);
    vtimer_arm(&t, 0);
    vtimer_cancel(&t);
    run_for_ms(5);
    assert_string_equal(trace, "tu");
    vtimer_fini(&t);
    vtimer_fini(&t);   // zeroed: legal
    clock_destroy(&c); // takes u along
    assert_null(u.clock);
}

// The door's time may run slower than the host's: the timer must wait for virtual time.
static void test_timer_obeys_the_door(void **state) {
    struct nondet nd = {.ops = &fake_ops};
    struct clock c;
    struct vtimer t;

    fake_ns = 0;
    clock_init(&c, &nd, loop);
    clock_resume(&c);
    vtimer_init(&t, &c, note, "t");
    vtimer_arm(&t, 2 * MS);
    run_for_ms(6);
    assert_string_equal(trace, "");
    fake_ns = 2 * MS;
    run_for_ms(6);
    assert_string_equal(trace, "t");
    clock_destroy(&c);
}

static void test_live_door(void **state) {
    uint8_t a[300] = {0}, b[300] = {0};

    assert_true(live.tsc_hz > 100000000ull && live.tsc_hz < 20000000000ull);
    uint64_t t0 = nondet_tsc(&live), n0 = nondet_monotonic_ns(&live);
    usleep(20000);
    uint64_t t1 = nondet_tsc(&live), n1 = nondet_monotonic_ns(&live);
    double ratio = (double)(t1 - t0) * 1e9 / (double)(n1 - n0) / (double)live.tsc_hz;
    assert_true(ratio > 0.98 && ratio < 1.02);
    assert_true(nondet_realtime_ns(&live) > 1600000000ull * 1000000000ull);
    nondet_random(&live, a, sizeof(a));
    nondet_random(&live, b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 284, b, 16);
    nondet_commit(&live, note, "now");
    assert_string_equal(trace, "now");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_save_load),
        cmocka_unit_test_setup_teardown(test_timer_stands_while_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_obeys_the_door, setup, teardown),
        cmocka_unit_test_setup_teardown(test_live_door, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
