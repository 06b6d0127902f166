// SPDX-License-Identifier: Apache-2.0
// 8259 pair: priorities, cascade, EOI commands, rotation, special mask, poll, AEOI, ELCR, spurious, state.
#include "dev/i8259.h"
#include "dev_harness.h"

struct fixture {
    struct harness *h;
    struct lapic *lapic;
    struct i8259 *pic;
    const struct irqchip_cpu *cpu;
};

static void init_pair(struct harness *h, uint8_t icw4) {
    outb(h, 0x20, 0x11);
    outb(h, 0x21, 0x20);
    outb(h, 0x21, 0x04);
    outb(h, 0x21, icw4);
    outb(h, 0xa0, 0x11);
    outb(h, 0xa1, 0x28);
    outb(h, 0xa1, 0x02);
    outb(h, 0xa1, 0x01);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(1);
    assert_int_equal(lapic_create(&f->h->env, 1, 0, &f->lapic, &err), 0);
    assert_int_equal(i8259_create(&f->h->env, f->lapic, &f->pic, &err), 0);
    f->cpu = lapic_irqchips(f->lapic);
    init_pair(f->h, 0x01);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static void set(struct fixture *f, unsigned gsi, bool level) {
    irq_set(&f->h->machine.irq, gsi, level);
}
static void pulse(struct fixture *f, unsigned gsi) {
    set(f, gsi, true);
    set(f, gsi, false);
}
static int pending(struct fixture *f) {
    return f->cpu->ops->pending(f->cpu->ctx);
}
static int ack(struct fixture *f) {
    return f->cpu->ops->ack(f->cpu->ctx);
}

static void test_priority_and_eoi(void **state) {
    struct fixture *f = *state;

    pulse(f, 4);
    pulse(f, 1);
    assert_int_equal(f->h->pokes[0], 2);
    assert_int_equal(ack(f), 0x21);
    assert_int_equal(pending(f), -1); // 4 waits for 1
    pulse(f, 0);
    assert_int_equal(ack(f), 0x20); // 0 does not
    outb(f->h, 0x20, 0x0b);
    assert_int_equal(inb(f->h, 0x20), 0x03); // ISR
    outb(f->h, 0x20, 0x0a);
    assert_int_equal(inb(f->h, 0x20), 0x10); // IRR
    outb(f->h, 0x20, 0x20);
    assert_int_equal(pending(f), -1);
    outb(f->h, 0x20, 0x61); // specific
    assert_int_equal(ack(f), 0x24);
}

static void test_mask(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x21, 0x10);
    assert_int_equal(inb(f->h, 0x21), 0x10);
    pulse(f, 4);
    assert_int_equal(pending(f), -1);
    outb(f->h, 0x21, 0x00); // the edge was latched
    assert_int_equal(pending(f), 0x24);
}

static void test_cascade(void **state) {
    struct fixture *f = *state;

    pulse(f, 12);
    pulse(f, 3);
    pulse(f, 9);
    assert_int_equal(ack(f), 0x29); // the slave stands at input 2
    assert_int_equal(pending(f), -1);
    outb(f->h, 0xa0, 0x20);
    assert_int_equal(pending(f), -1); // the master is still busy with 2
    outb(f->h, 0x20, 0x20);
    assert_int_equal(ack(f), 0x2c);
    outb(f->h, 0xa0, 0x20);
    outb(f->h, 0x20, 0x20);
    assert_int_equal(ack(f), 0x23);
}

static void test_withdrawn_request(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x4d0, 0x20); // 5 is a level
    set(f, 5, true);
    assert_int_equal(pending(f), 0x25);
    set(f, 5, false);
    assert_int_equal(pending(f), -1);
    set(f, 5, true);
    outb(f->h, 0x21, 0x20); // masked between INTR and INTA: the vCPU may have looked before
    assert_int_equal(pending(f), -1);
    outb(f->h, 0x20, 0x0b);
    assert_int_equal(inb(f->h, 0x20), 0);
}

static void test_level(void **state) {
    struct fixture *f = *state;

    outd(f->h, 0x4d0, 2, 0xffff);
    assert_int_equal(inb(f->h, 0x4d0), 0xf8); // 0, 1, 2 are edges for ever
    assert_int_equal(inb(f->h, 0x4d1), 0xde);
    set(f, 11, true);
    assert_int_equal(ack(f), 0x2b);
    outb(f->h, 0xa0, 0x20);
    outb(f->h, 0x20, 0x20);
    assert_int_equal(ack(f), 0x2b); // still asserted
    set(f, 11, false);
    outb(f->h, 0xa0, 0x20);
    outb(f->h, 0x20, 0x20);
    assert_int_equal(pending(f), -1);
}

static void test_auto_eoi(void **state) {
    struct fixture *f = *state;

    init_pair(f->h, 0x03);
    pulse(f, 5);
    pulse(f, 6);
    assert_int_equal(ack(f), 0x25);
    assert_int_equal(ack(f), 0x26);
    outb(f->h, 0x20, 0x80); // rotate in AEOI
    pulse(f, 3);
    assert_int_equal(ack(f), 0x23); // now 4 is highest
    pulse(f, 0);
    pulse(f, 4);
    assert_int_equal(ack(f), 0x24);
    assert_int_equal(ack(f), 0x20);
}

static void test_rotation(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x20, 0xc4); // 4 lowest, 5 highest
    pulse(f, 0);
    pulse(f, 5);
    pulse(f, 4);
    assert_int_equal(ack(f), 0x25);
    outb(f->h, 0x20, 0xa0); // EOI and rotate: 5 lowest, 6 highest
    assert_int_equal(ack(f), 0x20);
    outb(f->h, 0x20, 0xe0); // specific, rotate: 0 lowest
    assert_int_equal(ack(f), 0x24);
}

static void test_special_mask(void **state) {
    struct fixture *f = *state;

    pulse(f, 1);
    assert_int_equal(ack(f), 0x21);
    pulse(f, 6);
    assert_int_equal(pending(f), -1);
    outb(f->h, 0x20, 0x68);
    outb(f->h, 0x21, 0x02); // 1 masked: its service blocks nobody
    assert_int_equal(pending(f), 0x26);
    outb(f->h, 0x20, 0x48);
    assert_int_equal(pending(f), -1);
}

static void test_poll(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0x20, 0x0c);
    assert_int_equal(inb(f->h, 0x20), 0);
    pulse(f, 7);
    outb(f->h, 0x20, 0x0c);
    assert_int_equal(inb(f->h, 0x20), 0x87);
    assert_int_equal(pending(f), -1);
    outb(f->h, 0x20, 0x0b);
    assert_int_equal(inb(f->h, 0x20), 0x80);
}

static void test_reset_masks_all(void **state) {
    struct fixture *f = *state;

    pulse(f, 1);
    harness_reset(f->h);
    assert_int_equal(pending(f), -1);
    assert_int_equal(inb(f->h, 0x21), 0xff);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;
    struct component *c = harness_component(f->h, "i8259");

    pulse(f, 1);
    ack(f);
    pulse(f, 6);
    outb(f->h, 0xa1, 0x5a);
    outb(f->h, 0x20, 0x11); // in the middle of an initialisation
    outb(f->h, 0x21, 0x40);
    harness_save(f->h, "i8259", &w);
    c->ops->reset(c->ctx);
    harness_load(f->h, "i8259", &w);
    assert_int_equal(inb(f->h, 0xa1), 0x5a);
    outb(f->h, 0x21, 0x04);
    outb(f->h, 0x21, 0x01);
    pulse(f, 3);
    assert_int_equal(ack(f), 0x43);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_priority_and_eoi),  TEST(test_mask),         TEST(test_cascade),
        TEST(test_withdrawn_request), TEST(test_level),        TEST(test_auto_eoi),
        TEST(test_rotation),          TEST(test_special_mask), TEST(test_poll),
        TEST(test_reset_masks_all),   TEST(test_save_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
