// SPDX-License-Identifier: Apache-2.0
// State reader and writer, and the component list that uses them.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/component.h"

static void test_round_trip(void **state) {
    struct state_writer w = {0};
    uint8_t big[1000], back[1000];

    for (unsigned i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7);
    state_put_u8(&w, 0x12);
    state_put_u16(&w, 0x3456);
    state_put_u32(&w, 0x789abcde);
    state_put_u64(&w, 0x1122334455667788);
    state_put_bytes(&w, big, sizeof(big));
    assert_int_equal(state_writer_error(&w), 0);
    assert_int_equal(w.len, 15 + sizeof(big));
    const uint8_t le[] = {0x12, 0x56, 0x34, 0xde, 0xbc, 0x9a, 0x78, 0x88};
    assert_memory_equal(w.buf, le, sizeof(le));

    struct state_reader r = {.buf = w.buf, .len = w.len};
    assert_int_equal(state_get_u8(&r), 0x12);
    assert_int_equal(state_get_u16(&r), 0x3456);
    assert_int_equal(state_get_u32(&r), 0x789abcde);
    assert_int_equal(state_get_u64(&r), 0x1122334455667788);
    state_get_bytes(&r, back, sizeof(back));
    assert_memory_equal(back, big, sizeof(big));
    assert_int_equal(r.error, 0);
    assert_int_equal(r.pos, r.len);
    state_writer_free(&w);
    assert_null(w.buf);
}

static void test_overrun_gives_zeroes(void **state) {
    const uint8_t in[] = {1, 2, 3, 4, 5};
    struct state_reader r = {.buf = in, .len = sizeof(in)};
    uint8_t out[4] = {9, 9, 9, 9};

    assert_int_equal(state_get_u32(&r), 0x04030201);
    state_get_bytes(&r, out, sizeof(out));
    assert_int_equal(r.error, -EINVAL);
    const uint8_t zero[4] = {0};
    assert_memory_equal(out, zero, sizeof(out));
    // The byte that is left must not be read after the overrun.
    assert_int_equal(state_get_u8(&r), 0);
    assert_int_equal(r.error, -EINVAL);
}

// ---- component list: records the calls as letters ----

static char trace[64];

static void note(const char *what, void *ctx) {
    strcat(trace, what);
    strcat(trace, ctx);
}
static void c_reset(void *ctx) {
    note("r", ctx);
}
static void c_pause(void *ctx) {
    note("p", ctx);
}
static void c_resume(void *ctx) {
    note("g", ctx);
}
static void c_destroy(void *ctx) {
    note("d", ctx);
}

static void test_component_order(void **state) {
    static const struct component_ops full = {
        .name = "full", .reset = c_reset, .pause = c_pause, .resume = c_resume, .destroy = c_destroy};
    static const struct component_ops empty = {.name = "empty"};
    struct component_list list;

    component_list_init(&list);
    assert_int_equal(component_add(&list, &full, "1", 0), 0);
    assert_int_equal(component_add(&list, &empty, NULL, 0), 0);
    assert_int_equal(component_add(&list, &full, "2", 1), 0);
    assert_int_equal(list.head->next->next->instance, 1);
    component_reset_all(&list);
    component_pause_all(&list);
    component_resume_all(&list);
    component_destroy_all(&list);
    assert_string_equal(trace, "r1r2p1p2g1g2d2d1");
    assert_null(list.head);
    component_destroy_all(&list);
    assert_int_equal(component_add(&list, &full, "3", 0), 0);
    component_destroy_all(&list);
    assert_string_equal(trace, "r1r2p1p2g1g2d2d1d3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_overrun_gives_zeroes),
        cmocka_unit_test(test_component_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
