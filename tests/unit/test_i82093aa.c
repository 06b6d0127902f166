// SPDX-License-Identifier: Apache-2.0
// I/O APIC: edge and level, remote IRR, masks, EOI by broadcast, GSI wiring, state.
#include "dev/i82093aa.h"

#include "arch/x86/irqchip.h"
#include "dev_harness.h"

struct fixture {
    struct harness *h;
    struct lapic *lapic;
    struct i82093aa *io;
    const struct irqchip_cpu *chips;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(2);
    assert_int_equal(lapic_create(&f->h->env, 2, 0, &f->lapic, &err), 0);
    assert_int_equal(i82093aa_create(&f->h->env, I82093AA_BASE, 2, f->lapic, &f->io, &err), 0);
    f->chips = lapic_irqchips(f->lapic);
    for (unsigned i = 0; i < 2; i++)
        mmio_write32(f->h, LAPIC_DEFAULT_BASE + 0xf0, i, 0x1ff);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static uint32_t io_read(struct fixture *f, unsigned reg) {
    mmio_write32(f->h, I82093AA_BASE, 0, reg);
    return mmio_read32(f->h, I82093AA_BASE + 0x10, 0);
}
static void io_write(struct fixture *f, unsigned reg, uint32_t val) {
    mmio_write32(f->h, I82093AA_BASE, 0, reg);
    mmio_write32(f->h, I82093AA_BASE + 0x10, 0, val);
}
static void route(struct fixture *f, unsigned pin, uint32_t low, unsigned dest) {
    io_write(f, 0x11 + 2 * pin, dest << 24);
    io_write(f, 0x10 + 2 * pin, low);
}
static void set(struct fixture *f, unsigned gsi, bool level) {
    irq_set(&f->h->machine.irq, gsi, level);
}
static int ack(struct fixture *f, unsigned cpu) {
    return f->chips[cpu].ops->ack(f->chips[cpu].ctx);
}
static void eoi(struct fixture *f, unsigned cpu) {
    mmio_write32(f->h, LAPIC_DEFAULT_BASE + 0xb0, cpu, 0);
}

static void test_registers(void **state) {
    struct fixture *f = *state;

    assert_int_equal(io_read(f, 1), 0x00170011);
    assert_int_equal(io_read(f, 0), 2u << 24);
    assert_int_equal(io_read(f, 0x10), 0x10000);
    io_write(f, 0x10, 0xffffffff);
    assert_int_equal(io_read(f, 0x10), 0x1afff); // delivery status and remote IRR are read-only
    assert_int_equal(io_read(f, 0x40), 0);       // behind the last pin
    io_write(f, 0x40, 0xffffffff);
    io_write(f, 0xff, 0xffffffff);
}

static void test_edge(void **state) {
    struct fixture *f = *state;

    set(f, 4, true); // masked: lost
    set(f, 4, false);
    route(f, 4, 0x34, 1);
    assert_int_equal(ack(f, 1), -1);
    set(f, 4, true);
    set(f, 4, true); // no edge
    assert_int_equal(ack(f, 1), 0x34);
    eoi(f, 1);
    assert_int_equal(ack(f, 1), -1);
    set(f, 4, false);
    set(f, 4, true);
    assert_int_equal(ack(f, 1), 0x34);
    assert_int_equal(ack(f, 0), -1);
}

static void test_level_redelivers_on_eoi(void **state) {
    struct fixture *f = *state;

    route(f, 16, 0x8050, 0);
    set(f, 16, true);
    assert_int_equal(ack(f, 0), 0x50);
    assert_int_equal(io_read(f, 0x30), 0xc050); // remote IRR
    set(f, 16, false);
    set(f, 16, true); // no second message before the EOI
    assert_int_equal(ack(f, 0), -1);
    eoi(f, 0);
    assert_int_equal(ack(f, 0), 0x50); // still asserted
    set(f, 16, false);
    eoi(f, 0);
    assert_int_equal(ack(f, 0), -1);
    assert_int_equal(io_read(f, 0x30), 0x8050);
}

static void test_level_mask(void **state) {
    struct fixture *f = *state;

    route(f, 17, 0x18051, 0);
    set(f, 17, true);
    assert_int_equal(ack(f, 0), -1);
    io_write(f, 0x10 + 34, 0x8051); // unmasked while asserted
    assert_int_equal(ack(f, 0), 0x51);
    io_write(f, 0x10 + 34, 0x18051);
    eoi(f, 0);
    assert_int_equal(ack(f, 0), -1);
}

static void test_edge_trick(void **state) {
    struct fixture *f = *state;

    route(f, 18, 0x8052, 0);
    set(f, 18, true);
    assert_int_equal(ack(f, 0), 0x52);
    assert_int_equal(io_read(f, 0x34), 0xc052);
    mmio_write32(f->h, I82093AA_BASE + 0x40, 0, 0x52);
    assert_int_equal(io_read(f, 0x34), 0xc052);
    set(f, 18, false);
    io_write(f, 0x34, 0x10052); // through edge mode
    io_write(f, 0x34, 0x8052);
    assert_int_equal(io_read(f, 0x34), 0x8052);
    eoi(f, 0);
    assert_int_equal(ack(f, 0), -1);
}

static void test_gsi_wiring(void **state) {
    struct fixture *f = *state;

    route(f, 0, 0x60, 0);
    route(f, 2, 0x62, 0);
    set(f, 0, true); // the 8254 is on pin 2
    assert_int_equal(ack(f, 0), 0x62);
    eoi(f, 0);
    set(f, 0, false);
    set(f, 2, true);
    assert_int_equal(ack(f, 0), -1);
}

static void test_nmi_and_broadcast(void **state) {
    struct fixture *f = *state;

    route(f, 5, 0x400, 0xff);
    set(f, 5, true);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(f->chips[i].ops->take_events(f->chips[i].ctx), IRQCHIP_NMI);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    route(f, 16, 0x8050, 0);
    set(f, 16, true);
    assert_int_equal(ack(f, 0), 0x50);
    harness_save(f->h, "i82093aa", &w);
    struct component *c = harness_component(f->h, "i82093aa");
    c->ops->reset(c->ctx);
    assert_int_equal(io_read(f, 0x30), 0x10000);
    harness_load(f->h, "i82093aa", &w);
    assert_int_equal(io_read(f, 0x30), 0xc050);
    eoi(f, 0);
    assert_int_equal(ack(f, 0), 0x50);
}

// ---- local APICs of an engine ----

static struct {
    unsigned msis;
    uint64_t addr, route_addr[X86_IOAPIC_PINS];
    uint32_t data, route_data[X86_IOAPIC_PINS];
} engine_has;

static void engine_msi(struct engine *e, uint64_t addr, uint32_t data) {
    engine_has.msis++;
    engine_has.addr = addr;
    engine_has.data = data;
}

static void engine_route(struct engine *e, unsigned pin, uint64_t addr, uint32_t data) {
    engine_has.route_addr[pin] = addr;
    engine_has.route_data[pin] = data;
}

static void use_engines_lapics(struct fixture *f, struct engine_ops *ops) {
    *ops = *f->h->machine.engine_ops;
    ops->irq_msi = engine_msi;
    ops->irq_route = engine_route;
    f->h->machine.engine_ops = ops;
    memset(&engine_has, 0, sizeof(engine_has));
    lapic_set_remote(f->lapic, true);
}

// Messages go down; level-triggered pins have a route, masked or not, and their EOI comes back.
static void test_engines_lapics(void **state) {
    struct fixture *f = *state;
    static struct engine_ops ops; // outlives the test
    struct state_writer w = {0};

    use_engines_lapics(f, &ops);
    route(f, 4, 0x0034, 1); // edge
    set(f, 4, true);
    assert_int_equal(engine_has.addr, 0xfee01000);
    assert_int_equal(engine_has.data, 0x0034);
    assert_int_equal(engine_has.route_addr[4], 0);
    route(f, 17, 0x8951, 3); // level, logical, lowest priority
    assert_int_equal(engine_has.route_addr[17], 0xfee03004);
    assert_int_equal(engine_has.route_data[17], 0x8151);
    set(f, 17, true);
    assert_int_equal(engine_has.msis, 2);
    assert_int_equal(engine_has.data, 0x8151);
    set(f, 17, false);
    set(f, 17, true);
    assert_int_equal(engine_has.msis, 2); // not before the EOI
    f->chips[1].ops->eoi(f->chips[1].ctx, 0x51);
    assert_int_equal(engine_has.msis, 3);
    io_write(f, 0x10 + 2 * 17, 0x18951); // masked
    assert_int_equal(engine_has.route_data[17], 0x8151);
    harness_save(f->h, "i82093aa", &w);
    struct component *c = harness_component(f->h, "i82093aa");
    c->ops->reset(c->ctx);
    assert_int_equal(engine_has.route_addr[17], 0);
    harness_load(f->h, "i82093aa", &w);
    assert_int_equal(engine_has.route_addr[17], 0xfee03004);
    assert_int_equal(ack(f, 0), -1); // ours have got nothing
    assert_int_equal(ack(f, 1), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_registers),         TEST(test_edge),       TEST(test_level_redelivers_on_eoi),
        TEST(test_level_mask),        TEST(test_edge_trick), TEST(test_gsi_wiring),
        TEST(test_nmi_and_broadcast), TEST(test_save_load),  TEST(test_engines_lapics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
