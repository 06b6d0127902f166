// SPDX-License-Identifier: Apache-2.0
// RTC: calendar, formats, setting, UIP, the three interrupts, CMOS contents, state.
#include "dev/mc146818.h"
#include "dev/rtc_time.h"
#include "dev_harness.h"

#define SECOND UINT64_C(1000000000)

struct fixture {
    struct harness *h;
    struct mc146818 *rtc;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(1);
    assert_int_equal(mc146818_create(&f->h->env, UINT64_C(2) << 30, UINT64_C(5) << 30, &f->rtc, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static uint8_t get(struct fixture *f, uint8_t reg) {
    outb(f->h, 0x70, reg | 0x80); // NMI bit is not part of the index
    return inb(f->h, 0x71);
}
static void put(struct fixture *f, uint8_t reg, uint8_t val) {
    outb(f->h, 0x70, reg);
    outb(f->h, 0x71, val);
}

static void test_calendar(void **state) {
    static const struct {
        int64_t unix_s;
        struct rtc_time t;
    } cases[] = {
        {0, {1970, 1, 1, 0, 0, 0, 5}},
        {951782400, {2000, 2, 29, 0, 0, 0, 3}},
        {1709164799, {2024, 2, 28, 23, 59, 59, 4}},
        {4107542400, {2100, 3, 1, 0, 0, 0, 2}}, // 2100 is no leap year
        {-1, {1969, 12, 31, 23, 59, 59, 4}},
    };
    struct rtc_time t = {0}; // with its padding, as the cases have it

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        rtc_time_from_unix(cases[i].unix_s, &t);
        assert_memory_equal(&t, &cases[i].t, sizeof(t));
        assert_int_equal(rtc_time_to_unix(&t), cases[i].unix_s);
    }
    for (int64_t day = -800000; day < 800000; day += 37) {
        rtc_time_from_unix(day * 86400, &t);
        assert_int_equal(rtc_time_to_unix(&t), day * 86400);
    }
}

static void test_time_formats(void **state) {
    struct fixture *f = *state; // Tuesday 2023-11-14 22:13:20

    assert_int_equal(get(f, 0), 0x20);
    assert_int_equal(get(f, 2), 0x13);
    assert_int_equal(get(f, 4), 0x22);
    assert_int_equal(get(f, 6), 0x03);
    assert_int_equal(get(f, 7), 0x14);
    assert_int_equal(get(f, 8), 0x11);
    assert_int_equal(get(f, 9), 0x23);
    assert_int_equal(get(f, 0x32), 0x20);
    put(f, 0x0b, 0x04); // binary, 12 hours
    assert_int_equal(get(f, 0), 20);
    assert_int_equal(get(f, 4), 0x80 | 10);
    put(f, 0x0b, 0x00); // BCD, 12 hours
    assert_int_equal(get(f, 4), 0x90);
    harness_advance(f->h, 2 * 3600 * SECOND); // 00:13
    assert_int_equal(get(f, 4), 0x12);
}

static void test_set_time(void **state) {
    struct fixture *f = *state;

    put(f, 0x0b, 0x82); // SET
    put(f, 0x00, 0x58);
    put(f, 0x02, 0x59);
    put(f, 0x04, 0x23);
    put(f, 0x07, 0x28);
    put(f, 0x08, 0x02);
    put(f, 0x09, 0x24);
    harness_advance(f->h, 10 * SECOND); // time stands still
    assert_int_equal(get(f, 0), 0x58);
    put(f, 0x0b, 0x02);
    harness_advance(f->h, 2 * SECOND);
    assert_int_equal(get(f, 0), 0x00);
    assert_int_equal(get(f, 7), 0x29); // leap day
    put(f, 0x08, 0xff);                // nonsense does not crash
    put(f, 0x07, 0xff);
    put(f, 0x32, 0xff);
    put(f, 0x32, 0x00);
}

static void test_uip(void **state) {
    struct fixture *f = *state;

    assert_int_equal(get(f, 0x0a), 0x26);
    harness_advance(f->h, SECOND - 200000);
    assert_int_equal(get(f, 0x0a), 0xa6);
    assert_int_equal(get(f, 0), 0x20);
    harness_advance(f->h, 200000);
    assert_int_equal(get(f, 0x0a), 0x26);
    assert_int_equal(get(f, 0), 0x21);
}

static void test_update_interrupt(void **state) {
    struct fixture *f = *state;

    put(f, 0x0b, 0x12);
    get(f, 0x0c);
    for (unsigned i = 1; i <= 3; i++) {
        harness_advance(f->h, SECOND);
        assert_true(f->h->gsi[8]);
        assert_int_equal(f->h->gsi_edges[8], i);
        assert_int_equal(get(f, 0x0c) & 0xb0, 0x90);
        assert_false(f->h->gsi[8]);
        assert_int_equal(get(f, 0x0c), 0);
    }
    put(f, 0x0b, 0x92); // SET clears UIE
    assert_int_equal(get(f, 0x0b), 0x82);
}

static void test_alarm_interrupt(void **state) {
    struct fixture *f = *state;

    put(f, 1, 0x25);
    put(f, 3, 0x14);
    put(f, 5, 0xc0); // any hour
    put(f, 0x0b, 0x22);
    harness_advance(f->h, 64 * SECOND);
    assert_int_equal(f->h->gsi_edges[8], 0);
    harness_advance(f->h, SECOND + 1000);
    assert_int_equal(f->h->gsi_edges[8], 1); // 22:14:25
    assert_int_equal(get(f, 0x0c) & 0xa0, 0xa0);
    put(f, 0x0b, 0x02); // polled: found out later
    harness_advance(f->h, 3700 * SECOND);
    assert_int_equal(get(f, 0x0c) & 0xb0, 0x30);
}

static void test_periodic_interrupt(void **state) {
    struct fixture *f = *state;
    unsigned count = 0;

    put(f, 0x0a, 0x2a); // 64 Hz
    put(f, 0x0b, 0x42);
    for (int i = 0; i < 1000; i++) {
        harness_advance(f->h, 1000000);
        if (f->h->gsi[8]) {
            count++;
            assert_int_equal(get(f, 0x0c) & 0xc0, 0xc0);
        }
    }
    assert_in_range(count, 63, 65);
    put(f, 0x0a, 0x20); // rate 0: none
    get(f, 0x0c);
    harness_advance(f->h, SECOND / 2);
    assert_false(f->h->gsi[8]);
}

static void test_divider_reset(void **state) {
    struct fixture *f = *state;

    put(f, 0x0a, 0x76);
    harness_advance(f->h, 5 * SECOND);
    assert_int_equal(get(f, 0), 0x20);
    put(f, 0x0a, 0x26);
    harness_advance(f->h, SECOND / 2 - 1000000);
    assert_int_equal(get(f, 0), 0x20);
    harness_advance(f->h, 2000000);
    assert_int_equal(get(f, 0), 0x21);
}

static void test_cmos(void **state) {
    struct fixture *f = *state;

    assert_int_equal(get(f, 0x15) | get(f, 0x16) << 8, 640);
    assert_int_equal(get(f, 0x30) | get(f, 0x31) << 8, 0xffff);
    assert_int_equal(get(f, 0x34) | get(f, 0x35) << 8, ((2048 - 16) << 20) >> 16);
    assert_int_equal(get(f, 0x5b) | get(f, 0x5c) << 8 | get(f, 0x5d) << 16, (UINT64_C(5) << 30) >> 16);
    assert_int_equal(get(f, 0x0d), 0x80);
    put(f, 0x0d, 0);
    assert_int_equal(get(f, 0x0d), 0x80);
    put(f, 0x40, 0x9c);
    mc146818_set_cmos(f->rtc, 0x41, 0x9d);
    harness_reset(f->h); // battery-backed
    assert_int_equal(get(f, 0x40), 0x9c);
    assert_int_equal(get(f, 0x41), 0x9d);
    mc146818_set_cmos(f->rtc, 0xff, 1);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    put(f, 0x09, 0x30); // 2030
    put(f, 0x55, 0x12);
    put(f, 0x0b, 0x12);
    harness_save(f->h, "mc146818", &w);
    put(f, 0x09, 0x31);
    put(f, 0x55, 0x13);
    put(f, 0x0b, 0x02);
    harness_load(f->h, "mc146818", &w);
    assert_int_equal(get(f, 0x09), 0x30);
    assert_int_equal(get(f, 0x55), 0x12);
    harness_advance(f->h, SECOND);
    assert_int_equal(f->h->gsi_edges[8], 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calendar),
        TEST(test_time_formats),
        TEST(test_set_time),
        TEST(test_uip),
        TEST(test_update_interrupt),
        TEST(test_alarm_interrupt),
        TEST(test_periodic_interrupt),
        TEST(test_divider_reset),
        TEST(test_cmos),
        TEST(test_save_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
