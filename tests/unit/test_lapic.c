// SPDX-License-Identifier: Apache-2.0
// Local APIC: acceptance and priority, IPIs and destinations, timer, x2APIC, errors, state.
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "dev/lapic.h"
#include "dev_harness.h"

#define VCPUS  20
#define SVR_ON 0x1ff

struct fixture {
    struct harness *h;
    struct lapic *lapic;
    const struct irqchip_cpu *chips;
    int eois;
    uint8_t eoi_vector;
    int pic_acks;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(VCPUS);
    assert_int_equal(lapic_create(&f->h->env, VCPUS, 0, &f->lapic, &err), 0);
    f->chips = lapic_irqchips(f->lapic);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static uint32_t rd(struct fixture *f, unsigned cpu, unsigned off) {
    return mmio_read32(f->h, LAPIC_DEFAULT_BASE + off, cpu);
}
static void wr(struct fixture *f, unsigned cpu, unsigned off, uint32_t val) {
    mmio_write32(f->h, LAPIC_DEFAULT_BASE + off, cpu, val);
}
static int pending(struct fixture *f, unsigned cpu) {
    return f->chips[cpu].ops->pending(f->chips[cpu].ctx);
}
static int ack(struct fixture *f, unsigned cpu) {
    return f->chips[cpu].ops->ack(f->chips[cpu].ctx);
}
static uint32_t events(struct fixture *f, unsigned cpu) {
    return f->chips[cpu].ops->take_events(f->chips[cpu].ctx);
}
static int wrmsr(struct fixture *f, unsigned cpu, uint32_t reg, uint64_t val) {
    return f->chips[cpu].ops->reg_write(f->chips[cpu].ctx, reg, val);
}
static int rdmsr(struct fixture *f, unsigned cpu, uint32_t reg, uint64_t *val) {
    return f->chips[cpu].ops->reg_read(f->chips[cpu].ctx, reg, val);
}
static uint64_t msr(struct fixture *f, unsigned cpu, uint32_t reg) {
    uint64_t val = 0;

    assert_int_equal(rdmsr(f, cpu, reg, &val), 0);
    return val;
}
static void enable(struct fixture *f) {
    for (unsigned i = 0; i < VCPUS; i++)
        wr(f, i, 0xf0, SVR_ON);
}
static void enable_x2apic(struct fixture *f) {
    for (unsigned i = 0; i < VCPUS; i++) {
        assert_int_equal(wrmsr(f, i, 0x1b, msr(f, i, 0x1b) | 1 << 10), 0);
        assert_int_equal(wrmsr(f, i, 0x80f, SVR_ON), 0);
    }
}
static void send_fixed(struct fixture *f, unsigned cpu, uint8_t vector, bool level) {
    const struct lapic_msg msg = {.dest = cpu, .mode = LAPIC_DM_FIXED, .vector = vector, .level = level};

    lapic_send(f->lapic, &msg);
}
// Which vCPUs have `vector` pending; takes it from them.
static uint32_t takers(struct fixture *f, int vector) {
    uint32_t mask = 0;

    for (unsigned i = 0; i < VCPUS; i++)
        if (pending(f, i) == vector) {
            mask |= 1u << i;
            assert_int_equal(ack(f, i), vector);
            if (msr(f, i, 0x1b) & 1 << 10)
                wrmsr(f, i, 0x80b, 0);
            else
                wr(f, i, 0xb0, 0);
        }
    return mask;
}
static void on_eoi(void *ctx, uint8_t vector) {
    struct fixture *f = ctx;

    f->eois++;
    f->eoi_vector = vector;
}

static void test_reset_values(void **state) {
    struct fixture *f = *state;

    assert_int_equal(rd(f, 3, 0x20), 3u << 24);
    assert_int_equal(rd(f, 3, 0x30) & 0xff00ff, 0x050014);
    assert_int_equal(rd(f, 3, 0xf0), 0xff);
    assert_int_equal(rd(f, 3, 0xe0), 0xffffffff);
    assert_int_equal(rd(f, 3, 0x320), 0x10000);
    assert_int_equal(rd(f, 0, 0x350), 0x700); // virtual wire on the BSP
    assert_int_equal(rd(f, 1, 0x350), 0x10000);
    assert_int_equal(msr(f, 0, 0x1b), 0xfee00900);
    assert_int_equal(msr(f, 1, 0x1b), 0xfee00800);
}

static void test_software_disabled_accepts_nothing(void **state) {
    struct fixture *f = *state;

    send_fixed(f, 1, 0x40, false);
    assert_int_equal(pending(f, 1), -1);
    wr(f, 1, 0x350, 0x40); // stays masked while disabled
    assert_int_equal(rd(f, 1, 0x350), 0x10040);
}

static void test_priority_and_nesting(void **state) {
    struct fixture *f = *state;

    enable(f);
    send_fixed(f, 1, 0x45, false);
    send_fixed(f, 1, 0xe1, false);
    send_fixed(f, 1, 0x4f, false);
    assert_int_equal(f->h->pokes[1], 3);
    assert_int_equal(ack(f, 1), 0xe1);
    assert_int_equal(rd(f, 1, 0xa0), 0xe0);
    assert_int_equal(pending(f, 1), -1); // lower class waits
    assert_int_equal(ack(f, 1), -1);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(f->h->pokes[1], 4); // the EOI opened the next one
    assert_int_equal(ack(f, 1), 0x4f);
    assert_int_equal(pending(f, 1), -1); // same class waits too
    send_fixed(f, 1, 0x50, false);
    assert_int_equal(ack(f, 1), 0x50);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(rd(f, 1, 0x120), 1u << 15);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(ack(f, 1), 0x45);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(rd(f, 1, 0xa0), 0);
    assert_int_equal(pending(f, 1), -1);
}

static void test_tpr(void **state) {
    struct fixture *f = *state;

    enable(f);
    f->chips[2].ops->tpr_set(f->chips[2].ctx, 0x50);
    send_fixed(f, 2, 0x5f, false);
    assert_int_equal(pending(f, 2), -1);
    send_fixed(f, 2, 0x60, false);
    assert_int_equal(pending(f, 2), 0x60);
    wr(f, 2, 0x80, 0x60);
    assert_int_equal(f->chips[2].ops->tpr_get(f->chips[2].ctx), 0x60);
    assert_int_equal(pending(f, 2), -1);
    wr(f, 2, 0x80, 0);
    assert_int_equal(ack(f, 2), 0x60);
}

static void test_level_eoi_broadcast(void **state) {
    struct fixture *f = *state;

    enable(f);
    lapic_set_eoi_sink(f->lapic, on_eoi, f);
    send_fixed(f, 1, 0x71, true);
    assert_int_equal(rd(f, 1, 0x1b0), 1u << 17);
    assert_int_equal(ack(f, 1), 0x71);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->eoi_vector, 0x71);
    send_fixed(f, 1, 0x71, false); // now as an edge: TMR follows
    assert_int_equal(ack(f, 1), 0x71);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(f->eois, 1);
    wr(f, 1, 0xf0, SVR_ON | 1 << 12); // a broadcast that cannot be suppressed (version bit 24 clear)
    assert_int_equal(rd(f, 1, 0xf0), SVR_ON);
    assert_int_equal(rd(f, 1, 0x30), 0x50014);
    send_fixed(f, 1, 0x71, true);
    ack(f, 1);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(f->eois, 2);
}

static void test_ipi_shorthands(void **state) {
    struct fixture *f = *state;
    const uint32_t all = (1u << VCPUS) - 1;

    enable(f);
    wr(f, 4, 0x310, 7u << 24);
    wr(f, 4, 0x300, 0x4040);
    assert_int_equal(takers(f, 0x40), 1u << 7);
    wr(f, 4, 0x300, 0x44041);
    assert_int_equal(takers(f, 0x41), 1u << 4);
    wr(f, 4, 0x300, 0x84042);
    assert_int_equal(takers(f, 0x42), all);
    wr(f, 4, 0x300, 0xc4043);
    assert_int_equal(takers(f, 0x43), all & ~(1u << 4));
    wr(f, 4, 0x310, 0xff000000);
    wr(f, 4, 0x300, 0x4044);
    assert_int_equal(takers(f, 0x44), all);
    wr(f, 4, 0x310, 200u << 24); // nobody
    wr(f, 4, 0x300, 0x4045);
    assert_int_equal(takers(f, 0x45), 0);
}

static void test_logical_destinations(void **state) {
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < 8; i++)
        wr(f, i, 0xd0, 1u << (24 + i));
    wr(f, 0, 0x310, 0x06000000);
    wr(f, 0, 0x300, 0x4850);
    assert_int_equal(takers(f, 0x50), 0x06);
    for (unsigned i = 0; i < 8; i++) { // cluster model: 2 clusters of 4
        wr(f, i, 0xe0, 0x0fffffff);
        wr(f, i, 0xd0, (i / 4) << 28 | 1u << (24 + i % 4));
    }
    wr(f, 0, 0x310, 0x1a000000);
    wr(f, 0, 0x300, 0x4851);
    assert_int_equal(takers(f, 0x51), 0xa0);
}

static void test_lowest_priority(void **state) {
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < 4; i++)
        wr(f, i, 0xd0, 1u << (24 + i));
    for (unsigned i = 0; i < 4; i++)
        wr(f, i, 0x80, i == 2 ? 0x10 : 0x20);
    lapic_msi(f->lapic, 0xfee00000 | 0x0f << 12 | 4, 0x161);
    assert_int_equal(takers(f, 0x61), 1u << 2);
    wr(f, 2, 0x80, 0x20); // all alike: each gets its turn
    uint32_t seen = 0;
    for (unsigned i = 0; i < VCPUS; i++) {
        lapic_msi(f->lapic, 0xfee00000 | 0x0f << 12 | 4, 0x161);
        seen |= takers(f, 0x61);
    }
    assert_int_equal(seen, 0x0f);
}

static void test_msi(void **state) {
    struct fixture *f = *state;

    enable(f);
    irq_msi(&f->h->machine.irq, 0xfee00000 | 5 << 12, 0x4062);
    assert_int_equal(takers(f, 0x62), 1u << 5);
    lapic_msi(f->lapic, 0xfec00000 | 5 << 12, 0x4062); // not the MSI window
    assert_int_equal(takers(f, 0x62), 0);
    lapic_msi(f->lapic, 0xfee00000 | 5 << 12, 0x4400); // NMI
    assert_int_equal(events(f, 5), IRQCHIP_NMI);
}

static void test_init_sipi_order(void **state) {
    struct fixture *f = *state;

    wr(f, 0, 0x310, 3u << 24);
    wr(f, 0, 0x300, 0x4612); // SIPI, then INIT: the SIPI is void
    wr(f, 0, 0x300, 0x4500);
    wr(f, 0, 0x300, 0x8500); // de-assert: nothing
    assert_int_equal(events(f, 3), IRQCHIP_INIT);
    wr(f, 0, 0x300, 0x4500);
    wr(f, 0, 0x300, 0x4699);
    assert_int_equal(events(f, 3), IRQCHIP_INIT | IRQCHIP_SIPI | 0x9900);
    assert_int_equal(events(f, 3), 0);
    assert_true(f->h->pokes[3] > 0);
}

static void test_init_reset_keeps_base(void **state) {
    struct fixture *f = *state;

    enable_x2apic(f);
    wrmsr(f, 1, 0x808, 0x30);
    send_fixed(f, 1, 0x20, false);
    f->chips[1].ops->reset(f->chips[1].ctx, true);
    assert_int_equal(msr(f, 1, 0x1b), 0xfee00c00);
    assert_int_equal(msr(f, 1, 0x808), 0);
    assert_int_equal(msr(f, 1, 0x80f), 0xff);
    assert_int_equal(pending(f, 1), -1);
    f->chips[1].ops->reset(f->chips[1].ctx, false);
    assert_int_equal(msr(f, 1, 0x1b), 0xfee00800);
}

static void test_timer_one_shot(void **state) {
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, 0x320, 0x30);
    wr(f, 1, 0x3e0, 0x3); // by 16
    wr(f, 1, 0x380, 1000);
    harness_advance(f->h, 8000);
    assert_int_equal(rd(f, 1, 0x390), 500);
    wr(f, 1, 0x3e0, 0xb); // by 1: 500 more ns
    assert_int_equal(rd(f, 1, 0x390), 500);
    harness_advance(f->h, 499);
    assert_int_equal(pending(f, 1), -1);
    harness_advance(f->h, 1);
    assert_int_equal(ack(f, 1), 0x30);
    assert_int_equal(rd(f, 1, 0x390), 0);
    wr(f, 1, 0xb0, 0);
    harness_advance(f->h, 1000000);
    assert_int_equal(pending(f, 1), -1);
}

static void test_timer_periodic_merges_late_ticks(void **state) {
    struct fixture *f = *state;
    int ticks = 0;

    enable(f);
    wr(f, 1, 0x320, 0x20030);
    wr(f, 1, 0x3e0, 0xb);
    wr(f, 1, 0x380, 100000);
    for (int i = 0; i < 10; i++) {
        harness_advance(f->h, 100000);
        ticks += takers(f, 0x30) != 0;
    }
    assert_int_equal(ticks, 10);
    harness_lag(f->h, 250000);
    harness_advance(f->h, 0);
    assert_int_equal(takers(f, 0x30), 2);
    assert_int_equal(rd(f, 1, 0x390), 50000); // in phase
    harness_advance(f->h, 49999);
    assert_int_equal(pending(f, 1), -1);
    harness_advance(f->h, 1);
    assert_int_equal(takers(f, 0x30), 2);
    wr(f, 1, 0x320, 0x30030); // masked: counts, tells nobody
    harness_advance(f->h, 1000000);
    assert_int_equal(pending(f, 1), -1);
    wr(f, 1, 0x320, 0x20030);
    wr(f, 1, 0x380, 1); // hostile: the event loop must not drown
    harness_advance(f->h, 1000000);
    assert_int_equal(takers(f, 0x30), 2);
    wr(f, 1, 0x380, 0);
    harness_advance(f->h, 1000000);
    assert_int_equal(pending(f, 1), -1);
}

static void test_tsc_deadline(void **state) {
    struct fixture *f = *state;
    uint64_t now;

    enable(f);
    assert_int_equal(wrmsr(f, 1, 0x6e0, 1), 0); // not in deadline mode: ignored
    assert_int_equal(msr(f, 1, 0x6e0), 0);
    wr(f, 1, 0x320, 0x40031);
    lapic_set_tsc_offset(f->lapic, 1, UINT64_C(1) << 40);
    now = f->h->mono_ns * 2 + (UINT64_C(1) << 40);
    assert_int_equal(wrmsr(f, 1, 0x6e0, now + 20000), 0); // 10 us at 2 GHz
    assert_int_equal(msr(f, 1, 0x6e0), now + 20000);
    harness_advance(f->h, 9998);
    assert_int_equal(pending(f, 1), -1);
    harness_advance(f->h, 3);
    assert_int_equal(takers(f, 0x31), 2);
    assert_int_equal(msr(f, 1, 0x6e0), 0);
    assert_int_equal(wrmsr(f, 1, 0x6e0, now), 0); // in the past: at once
    assert_int_equal(takers(f, 0x31), 2);
    wrmsr(f, 1, 0x6e0, now + 1000000);
    wrmsr(f, 1, 0x6e0, 0); // disarmed
    harness_advance(f->h, 10000000);
    assert_int_equal(pending(f, 1), -1);
    wrmsr(f, 1, 0x6e0, UINT64_MAX); // no overflow
    harness_advance(f->h, 10000000);
    assert_int_equal(pending(f, 1), -1);
    wr(f, 1, 0x320, 0x31); // leaving the mode disarms
    assert_int_equal(msr(f, 1, 0x6e0), 0);
}

static void test_x2apic(void **state) {
    struct fixture *f = *state;
    uint64_t val;

    assert_int_equal(rdmsr(f, 1, 0x802, &val), -EPERM); // not yet in x2APIC mode
    enable_x2apic(f);
    assert_int_equal(msr(f, 17, 0x802), 17);
    assert_int_equal(msr(f, 17, 0x80d), 0x10002);
    assert_int_equal(rd(f, 17, 0x20), UINT32_MAX); // no MMIO
    assert_int_equal(wrmsr(f, 1, 0x830, UINT64_C(18) << 32 | 0x4077), 0);
    assert_int_equal(takers(f, 0x77), 1u << 18);
    assert_int_equal(wrmsr(f, 1, 0x830, UINT64_C(0x10005) << 32 | 0x4878), 0); // cluster 1, members 0 and 2
    assert_int_equal(takers(f, 0x78), 1u << 16 | 1u << 18);
    assert_int_equal(wrmsr(f, 1, 0x830, UINT64_C(0xffffffff) << 32 | 0x4079), 0);
    assert_int_equal(takers(f, 0x79), (1u << VCPUS) - 1);
    assert_int_equal(wrmsr(f, 1, 0x83f, 0x7a), 0);
    assert_int_equal(takers(f, 0x7a), 2);
}

static void test_x2apic_faults(void **state) {
    struct fixture *f = *state;
    uint64_t val;

    assert_int_equal(rdmsr(f, 1, 0x10, &val), -ENOENT);
    enable_x2apic(f);
    assert_int_equal(wrmsr(f, 1, 0x802, 1), -EPERM);     // ID is read-only
    assert_int_equal(wrmsr(f, 1, 0x80b, 1), -EPERM);     // EOI takes zero
    assert_int_equal(wrmsr(f, 1, 0x808, 0x100), -EPERM); // reserved
    assert_int_equal(wrmsr(f, 1, 0x80e, 0), -EPERM);     // no DFR
    assert_int_equal(wrmsr(f, 1, 0x831, 0), -EPERM);     // no upper half of ICR
    assert_int_equal(wrmsr(f, 1, 0x839, 0), -EPERM);     // current count
    assert_int_equal(wrmsr(f, 1, 0x8ff, 0), -EPERM);
    assert_int_equal(rdmsr(f, 1, 0x80b, &val), -EPERM); // write-only
    assert_int_equal(rdmsr(f, 1, 0x83f, &val), -EPERM);
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00800), -EPERM); // x2APIC to xAPIC
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00400), -EPERM); // EXTD without EN
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00000), 0);
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00c00), -EPERM); // off to x2APIC
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00801), -EPERM); // reserved
    assert_int_equal(wrmsr(f, 1, 0x1b, 0xfee00800), 0);
    assert_int_equal(rd(f, 1, 0xf0), 0xff);
}

static void test_errors(void **state) {
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, 0x370, 0xfe);
    wr(f, 1, 0x300, 0x44005); // self IPI with an illegal vector
    assert_int_equal(takers(f, 0xfe), 2);
    assert_int_equal(rd(f, 1, 0x280), 0); // latched by a write only
    wr(f, 1, 0x280, 0);
    assert_int_equal(rd(f, 1, 0x280), 1 << 5);
    wr(f, 1, 0x280, 0);
    assert_int_equal(rd(f, 1, 0x280), 0);
    send_fixed(f, 1, 3, false);
    rd(f, 1, 0x3a0); // no such register
    wr(f, 1, 0x280, 0);
    assert_int_equal(rd(f, 1, 0x280), 1 << 6 | 1 << 7);
}

static int pic_ack(void *ctx) {
    struct fixture *f = ctx;

    f->pic_acks++;
    return 0x21;
}

static void test_extint(void **state) {
    struct fixture *f = *state;

    lapic_set_pic(f->lapic, pic_ack, f);
    lapic_set_extint(f->lapic, 0x21);
    assert_int_equal(f->h->pokes[0], 1);
    assert_int_equal(pending(f, 0), 0x21); // virtual wire, although software-disabled
    assert_int_equal(pending(f, 1), -1);
    assert_int_equal(ack(f, 0), 0x21);
    assert_int_equal(f->pic_acks, 1);
    enable(f);
    wr(f, 0, 0x350, 0x10700);
    assert_int_equal(pending(f, 0), -1);
    wrmsr(f, 0, 0x1b, 0xfee00100); // APIC off: INTR is direct
    assert_int_equal(pending(f, 0), 0x21);
    wrmsr(f, 0, 0x1b, 0xfee00900);
    wr(f, 0, 0xf0, SVR_ON);
    wr(f, 0, 0x350, 0x66); // fixed: an edge gives the vector
    lapic_set_extint(f->lapic, -1);
    lapic_set_extint(f->lapic, 0x21);
    assert_int_equal(ack(f, 0), 0x66);
    assert_int_equal(f->pic_acks, 1);
}

static void test_lint1_nmi(void **state) {
    struct fixture *f = *state;

    enable(f);
    wr(f, 2, 0x360, 0x400);
    lapic_set_lint1(f->lapic, true);
    lapic_set_lint1(f->lapic, true); // no edge
    assert_int_equal(events(f, 2), IRQCHIP_NMI);
    assert_int_equal(events(f, 1), 0);
    lapic_set_lint1(f->lapic, true);
    assert_int_equal(events(f, 2), 0);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    enable(f);
    wr(f, 1, 0x80, 0x20);
    wr(f, 1, 0x320, 0x20035);
    wr(f, 1, 0x3e0, 0xb);
    wr(f, 1, 0x380, 1000000);
    send_fixed(f, 1, 0x41, true);
    send_fixed(f, 1, 0x91, false);
    assert_int_equal(ack(f, 1), 0x91);
    wr(f, 0, 0x310, 1u << 24);
    wr(f, 0, 0x300, 0x4699);
    harness_save(f->h, "lapic", &w);
    harness_reset(f->h);
    assert_int_equal(rd(f, 1, 0xf0), 0xff);
    harness_load(f->h, "lapic", &w);
    assert_int_equal(rd(f, 1, 0xf0), SVR_ON);
    assert_int_equal(rd(f, 1, 0xa0), 0x90);
    assert_int_equal(events(f, 1), IRQCHIP_SIPI | 0x9900);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(ack(f, 1), 0x41);
    lapic_set_eoi_sink(f->lapic, on_eoi, f);
    wr(f, 1, 0xb0, 0);
    assert_int_equal(f->eoi_vector, 0x41);
    harness_advance(f->h, 1000000);
    assert_int_equal(ack(f, 1), 0x35);
}

static void test_odd_accesses(void **state) {
    struct fixture *f = *state;
    uint64_t v;

    bus_read(f->h->env.mmio, LAPIC_DEFAULT_BASE + 0x32, 1, 1, &v);
    assert_int_equal(v & 0xff, 0x05); // byte 2 of the version
    bus_write(f->h->env.mmio, LAPIC_DEFAULT_BASE + 0xf4, 4, 1, SVR_ON);
    bus_write(f->h->env.mmio, LAPIC_DEFAULT_BASE + 0xf0, 1, 1, 0x11);
    assert_int_equal(rd(f, 1, 0xf0), 0xff);
    bus_read(f->h->env.mmio, LAPIC_DEFAULT_BASE + 0x20, 4, 1000, &v); // no such vCPU
    assert_int_equal((uint32_t)v, UINT32_MAX);
    wr(f, 1000, 0xf0, SVR_ON);
    for (unsigned off = 0; off < 4096; off += 4) { // nothing crashes
        rd(f, 1, off);
        wr(f, 1, off, 0xffffffff);
    }
}

// Two posters on one vCPU: each sends its next vector only when the last one was taken, so one lost hangs it.
#define ROUNDS 20000
static struct poster {
    struct fixture *f;
    uint8_t first_vector;
    atomic_uint taken;
} posters[2];

static void *post_thread(void *arg) {
    struct poster *p = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        send_fixed(p->f, 1, (uint8_t)(p->first_vector + i % 64), i & 1);
        while (atomic_load(&p->taken) == i)
            ;
    }
    return NULL;
}

static void test_no_vector_is_lost(void **state) {
    struct fixture *f = *state;
    pthread_t threads[2];
    unsigned left = 2 * ROUNDS;

    enable(f);
    alarm(60);
    for (int i = 0; i < 2; i++) {
        posters[i].f = f;
        posters[i].first_vector = i ? 0x98 : 0x58; // they share a word of IRR
        atomic_store(&posters[i].taken, 0);
        assert_int_equal(pthread_create(&threads[i], NULL, post_thread, &posters[i]), 0);
    }
    while (left) {
        int vector = ack(f, 1);
        if (vector < 0)
            continue;
        left--;
        wr(f, 1, 0xb0, 0);
        unsigned i = vector >= 0x98;
        atomic_fetch_add(&posters[i].taken, 1);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    alarm(0);
    assert_int_equal(pending(f, 1), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_reset_values),
        TEST(test_software_disabled_accepts_nothing),
        TEST(test_priority_and_nesting),
        TEST(test_tpr),
        TEST(test_level_eoi_broadcast),
        TEST(test_ipi_shorthands),
        TEST(test_logical_destinations),
        TEST(test_lowest_priority),
        TEST(test_msi),
        TEST(test_init_sipi_order),
        TEST(test_init_reset_keeps_base),
        TEST(test_timer_one_shot),
        TEST(test_timer_periodic_merges_late_ticks),
        TEST(test_tsc_deadline),
        TEST(test_x2apic),
        TEST(test_x2apic_faults),
        TEST(test_errors),
        TEST(test_extint),
        TEST(test_lint1_nmi),
        TEST(test_save_load),
        TEST(test_odd_accesses),
        TEST(test_no_vector_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
