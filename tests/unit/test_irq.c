// SPDX-License-Identifier: Apache-2.0
// Interrupt routing and shared lines.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/irq.h"

struct sink {
    unsigned calls, gsi;
    bool level;
};

static void sink_set(void *ctx, unsigned gsi, bool level) {
    struct sink *s = ctx;

    s->calls++;
    s->gsi = gsi;
    s->level = level;
}

static uint64_t msi_addr;
static uint32_t msi_data;

static void msi(void *ctx, uint64_t addr, uint32_t data) {
    msi_addr = addr;
    msi_data = data;
}

static void test_router(void **state) {
    struct irq_router r;
    struct sink a = {0}, b = {0};

    irq_router_init(&r);
    irq_set(&r, 1, true);
    irq_msi(&r, 0xfee00000, 0x31); // no sink yet: dropped
    assert_int_equal(irq_add_sink(&r, sink_set, &a), 0);
    assert_int_equal(irq_add_sink(&r, sink_set, &b), 0);
    irq_set(&r, 5, true);
    assert_true(a.calls == 1 && b.calls == 1 && a.gsi == 5 && b.gsi == 5 && a.level);
    irq_set(&r, IRQ_GSI_COUNT, true);
    irq_set(&r, ~0u, true);
    assert_int_equal(a.calls, 1);
    irq_set_msi_sink(&r, msi, NULL);
    irq_msi(&r, 0xfee01000, 0x42);
    assert_int_equal(msi_addr, 0xfee01000);
    assert_int_equal(msi_data, 0x42);
    assert_int_equal(irq_add_sink(&r, sink_set, &b), 0);
    assert_int_equal(irq_add_sink(&r, sink_set, &b), 0);
    assert_int_equal(irq_add_sink(&r, sink_set, &b), -ENOSPC);
}

static void test_shared_line(void **state) {
    struct irq_router r;
    struct irq_line l;
    struct sink s = {0};
    bool one = false, two = false;

    irq_router_init(&r);
    irq_add_sink(&r, sink_set, &s);
    irq_line_init(&l, &r, 17);
    irq_line_set(&l, &one, false);
    assert_int_equal(s.calls, 0);
    irq_line_set(&l, &one, true);
    irq_line_set(&l, &one, true);
    irq_line_set(&l, &two, true);
    assert_true(s.calls == 1 && s.level && s.gsi == 17);
    irq_line_set(&l, &one, false);
    irq_line_set(&l, &one, false);
    assert_true(s.calls == 1 && s.level); // two still drives it
    irq_line_set(&l, &two, false);
    assert_true(s.calls == 2 && !s.level);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_router), cmocka_unit_test(test_shared_line)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
