// SPDX-License-Identifier: Apache-2.0
// Look-up, overlap, splitting at the ends of ranges, and the background range.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>

#include "bus/bus.h"

struct probe {
    unsigned reads, writes;
    uint64_t offset, data, answer;
    uint8_t size;
    unsigned vcpu;
};

static void probe_read(void *ctx, struct bus_access *a) {
    struct probe *p = ctx;
    p->reads++;
    p->offset = a->offset;
    p->size = a->size;
    p->vcpu = a->vcpu;
    a->data = p->answer + a->offset;
}

static void probe_write(void *ctx, const struct bus_access *a) {
    struct probe *p = ctx;
    p->writes++;
    p->offset = a->offset;
    p->size = a->size;
    p->data = a->data;
}

static const struct bus_ops probe_ops = {.name = "probe", .read = probe_read, .write = probe_write};

static struct bus *new_bus(void) {
    struct error err;
    struct bus *b;
    assert_int_equal(bus_create(&b, "test", &err), 0);
    return b;
}

static void test_dispatch(void **state) {
    struct bus *b = new_bus();
    struct probe low = {.answer = 0x10}, high = {.answer = 0x20};
    uint64_t v;
    assert_int_equal(bus_map(b, 0x2000, 0x100, &probe_ops, &high), 0);
    assert_int_equal(bus_map(b, 0x1000, 0x100, &probe_ops, &low), 0);
    assert_true(bus_read(b, 0x1004, 4, 3, &v));
    assert_int_equal(v, 0x14);
    assert_int_equal(low.vcpu, 3);
    assert_true(bus_write(b, 0x20ff, 1, 0, 0x1234));
    assert_int_equal(high.offset, 0xff);
    assert_int_equal(high.data, 0x34); // cut to the width
    assert_false(bus_read(b, 0xfff, 1, 0, &v));
    assert_int_equal(v, 0xff);
    assert_false(bus_read(b, 0x2100, 8, 0, &v));
    assert_true(v == UINT64_MAX);
    assert_false(bus_read(b, 0x1000, 3, 0, &v)); // no such width
    bus_unmap(b, 0x1000);
    assert_false(bus_write(b, 0x1000, 4, 0, 1));
    assert_int_equal(low.writes, 0);
    bus_destroy(b);
    bus_destroy(NULL);
}

static void test_overlap(void **state) {
    struct bus *b = new_bus();
    struct probe p = {0};
    assert_int_equal(bus_map(b, 0x1000, 0x100, &probe_ops, &p), 0);
    assert_int_equal(bus_map(b, 0x1000, 0x100, &probe_ops, &p), -EEXIST);
    assert_int_equal(bus_map(b, 0x10ff, 1, &probe_ops, &p), -EEXIST);
    assert_int_equal(bus_map(b, 0xf00, 0x101, &probe_ops, &p), -EEXIST);
    assert_int_equal(bus_map(b, 0xf00, 0x1000, &probe_ops, &p), -EEXIST);
    assert_int_equal(bus_map(b, 0x1050, 4, &probe_ops, &p), -EEXIST);
    assert_int_equal(bus_map(b, 0x1100, 1, &probe_ops, &p), 0);
    assert_int_equal(bus_map(b, 0xf00, 0x100, &probe_ops, &p), 0);
    assert_int_equal(bus_map(b, 0x5000, 0, &probe_ops, &p), -EINVAL);
    assert_int_equal(bus_map(b, UINT64_MAX, 2, &probe_ops, &p), -EINVAL);
    assert_int_equal(bus_map(b, UINT64_MAX, 1, &probe_ops, &p), 0);
    bus_destroy(b);
}

static void test_split(void **state) {
    struct bus *b = new_bus();
    struct probe one = {.answer = 0xa0}, two = {.answer = 0xb0};
    uint64_t v;
    assert_int_equal(bus_map(b, 0x100, 2, &probe_ops, &one), 0);
    assert_int_equal(bus_map(b, 0x102, 1, &probe_ops, &two), 0);
    assert_true(bus_read(b, 0x100, 4, 0, &v));
    assert_int_equal(v, 0xffb0a1a0); // bytes of both, ones where nothing is
    assert_int_equal(one.reads, 2);
    assert_int_equal(one.size, 1);
    assert_true(bus_write(b, 0xff, 4, 0, 0x44332211)); // starts in front of the range
    assert_int_equal(one.writes, 2);
    assert_int_equal(one.data, 0x33);
    assert_int_equal(two.data, 0x44);
    bus_destroy(b);
}

static void test_background(void **state) {
    struct bus *b = new_bus();
    struct probe reset = {0}, address = {0};
    assert_int_equal(bus_map(b, 0xcf9, 1, &probe_ops, &reset), 0);
    assert_int_equal(bus_map_background(b, 0xcf8, 4, &probe_ops, &address), 0);
    assert_true(bus_write(b, 0xcf8, 4, 0, 0x80000600));
    assert_int_equal(address.data, 0x80000600);
    assert_int_equal(reset.writes, 0); // a configuration address must not reset the machine
    assert_true(bus_write(b, 0xcf9, 1, 0, 6));
    assert_int_equal(reset.data, 6);
    assert_int_equal(address.writes, 1);
    bus_unmap(b, 0xcf9);
    assert_true(bus_write(b, 0xcf9, 1, 0, 6));
    assert_int_equal(address.writes, 2);
    bus_destroy(b);
}

static void test_many(void **state) {
    struct bus *b = new_bus();
    struct probe p[200] = {{0}};
    uint64_t v;
    for (unsigned i = 0; i < 200; i++) { // in an order that is none
        unsigned k = i * 77 % 200;
        p[k].answer = k;
        assert_int_equal(bus_map(b, 0x10000 + k * 16, 8, &probe_ops, &p[k]), 0);
    }
    for (unsigned i = 0; i < 200; i++) {
        assert_true(bus_read(b, 0x10000 + i * 16, 2, 0, &v));
        assert_int_equal(v, i);
        assert_false(bus_read(b, 0x10000 + i * 16 + 8, 2, 0, &v));
    }
    bus_destroy(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatch), cmocka_unit_test(test_overlap),    cmocka_unit_test(test_split),
        cmocka_unit_test(test_many),     cmocka_unit_test(test_background),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
