// SPDX-License-Identifier: Apache-2.0
// 8254: modes, latches, read-back, BCD, gate and port 0x61, interrupt of channel 0, state.
#include "arch/x86/irqchip.h"
#include "dev/i8254.h"
#include "dev_harness.h"

struct fixture {
    struct harness *h;
    struct i8254 *pit;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(1);
    assert_int_equal(i8254_create(&f->h->env, &f->pit, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static void ticks(struct fixture *f, uint64_t n) {
    harness_advance(f->h, dev_ticks_to_ns(n, X86_PIT_HZ));
}
static void program(struct fixture *f, unsigned ch, unsigned mode, uint16_t count) {
    outb(f->h, 0x43, (uint8_t)(ch << 6 | 0x30 | mode << 1));
    outb(f->h, (uint16_t)(0x40 + ch), count & 0xff);
    outb(f->h, (uint16_t)(0x40 + ch), count >> 8);
}
static uint16_t latched(struct fixture *f, unsigned ch) {
    uint8_t low;

    outb(f->h, 0x43, (uint8_t)(ch << 6));
    low = inb(f->h, (uint16_t)(0x40 + ch));
    return (uint16_t)(low | inb(f->h, (uint16_t)(0x40 + ch)) << 8);
}
static bool out2(struct fixture *f) {
    return inb(f->h, 0x61) & 0x20;
}

static void test_rate_generator_interrupts(void **state) {
    struct fixture *f = *state;

    program(f, 0, 2, 11932); // 100 Hz
    harness_advance(f->h, UINT64_C(1000000000));
    assert_in_range(f->h->gsi_edges[0], 99, 100);
    harness_advance(f->h, UINT64_C(1000000000));
    assert_in_range(f->h->gsi_edges[0], 199, 200);
    unsigned before = f->h->gsi_edges[0];
    harness_lag(f->h, 55000000); // 5 periods late: one interrupt, in phase
    harness_advance(f->h, 0);
    assert_int_equal(f->h->gsi_edges[0], before + 1);
    program(f, 0, 2, 1); // hostile rate
    harness_advance(f->h, 1000000);
    assert_in_range(f->h->gsi_edges[0], before + 10, before + 60);
}

static void test_one_shot_interrupt(void **state) {
    struct fixture *f = *state;

    program(f, 0, 0, 1000);
    assert_false(f->h->gsi[0]);
    ticks(f, 998);
    assert_int_equal(f->h->gsi_edges[0], 0);
    ticks(f, 3);
    assert_true(f->h->gsi[0]);
    harness_advance(f->h, UINT64_C(1000000000));
    assert_int_equal(f->h->gsi_edges[0], 1);
}

static void test_count_and_latch(void **state) {
    struct fixture *f = *state;

    program(f, 2, 0, 5000);
    outb(f->h, 0x61, 1);
    ticks(f, 1000);
    outb(f->h, 0x43, 0x80); // latch
    ticks(f, 1000);
    outb(f->h, 0x43, 0x80); // has no effect before the read
    uint8_t low = inb(f->h, 0x42), high = inb(f->h, 0x42);
    assert_in_range(low | high << 8, 3999, 4000);
    low = inb(f->h, 0x42); // live now
    high = inb(f->h, 0x42);
    assert_in_range(low | high << 8, 2999, 3000);
    assert_in_range(latched(f, 2), 2999, 3000);
}

static void test_gate_holds_mode_0(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x61, 1);
    program(f, 2, 0, 1000);
    ticks(f, 400);
    outb(f->h, 0x61, 0);
    ticks(f, 5000);
    assert_false(out2(f));
    assert_in_range(latched(f, 2), 599, 600);
    outb(f->h, 0x61, 1);
    ticks(f, 599);
    assert_false(out2(f));
    ticks(f, 2);
    assert_true(out2(f));
}

static void test_gate_triggers_mode_1(void **state) {
    struct fixture *f = *state;

    program(f, 2, 1, 100);
    ticks(f, 500);
    assert_true(out2(f)); // not triggered
    outb(f->h, 0x61, 1);
    assert_false(out2(f));
    ticks(f, 60);
    outb(f->h, 0x61, 0); // retriggered
    outb(f->h, 0x61, 1);
    ticks(f, 60);
    assert_false(out2(f));
    ticks(f, 41);
    assert_true(out2(f));
}

static void test_square_wave(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x61, 1);
    program(f, 2, 3, 1000);
    assert_true(out2(f));
    ticks(f, 501);
    assert_false(out2(f));
    assert_int_equal(latched(f, 2) & 1, 0);
    ticks(f, 500);
    assert_true(out2(f));
    outb(f->h, 0x61, 0); // gate low forces OUT high
    ticks(f, 501);
    assert_true(out2(f));
}

static void test_strobe(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x61, 1);
    program(f, 2, 4, 50);
    assert_true(out2(f));
    ticks(f, 50);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void test_read_back(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x43, 0xb6); // channel 2, mode 3, no count yet
    outb(f->h, 0x43, 0xe8); // status of 2
    assert_int_equal(inb(f->h, 0x42), 0x80 | 0x40 | 0x36);
    outb(f->h, 0x61, 1);
    program(f, 2, 2, 4000);
    ticks(f, 1000);
    outb(f->h, 0x43, 0xc8); // status and count
    assert_int_equal(inb(f->h, 0x42), 0x80 | 0x34);
    uint8_t low = inb(f->h, 0x42), high = inb(f->h, 0x42);
    assert_in_range(low | high << 8, 2999, 3000);
}

static void test_bcd_and_single_byte(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x61, 1);
    outb(f->h, 0x43, 0xb1); // channel 2, mode 0, BCD
    outb(f->h, 0x42, 0x00);
    outb(f->h, 0x42, 0x20); // 2000
    ticks(f, 501);
    assert_in_range(latched(f, 2), 0x1498, 0x1499);
    outb(f->h, 0x43, 0xa4); // high byte only, mode 2
    outb(f->h, 0x42, 0x10);
    ticks(f, 0x101);
    assert_int_equal(inb(f->h, 0x42), 0x0e);
}

static void test_port61(void **state) {
    struct fixture *f = *state;
    uint8_t first = inb(f->h, 0x61) & 0x10;

    harness_lag(f->h, 15085);
    assert_int_not_equal(inb(f->h, 0x61) & 0x10, first);
    outb(f->h, 0x61, 0xff);
    assert_int_equal(inb(f->h, 0x61) & 0xcf, 0x0f);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    program(f, 0, 2, 11932);
    outb(f->h, 0x43, 0xb0);
    outb(f->h, 0x42, 0x34); // half of a count
    harness_save(f->h, "i8254", &w);
    harness_reset(f->h);
    unsigned edges = f->h->gsi_edges[0];
    harness_advance(f->h, 100000000);
    assert_int_equal(f->h->gsi_edges[0], edges);
    harness_load(f->h, "i8254", &w);
    edges = f->h->gsi_edges[0];
    harness_advance(f->h, 100000000);
    assert_in_range(f->h->gsi_edges[0] - edges, 9, 11);
    outb(f->h, 0x42, 0x12);
    assert_int_equal(latched(f, 2), 0x1234);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_rate_generator_interrupts),
        TEST(test_one_shot_interrupt),
        TEST(test_count_and_latch),
        TEST(test_gate_holds_mode_0),
        TEST(test_gate_triggers_mode_1),
        TEST(test_square_wave),
        TEST(test_strobe),
        TEST(test_read_back),
        TEST(test_bcd_and_single_byte),
        TEST(test_port61),
        TEST(test_save_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
