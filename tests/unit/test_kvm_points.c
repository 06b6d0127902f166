// SPDX-License-Identifier: Apache-2.0
// How a debugger's points are spread over debug registers and memory. Needs no KVM.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kvm/kvm.h"

#define SOFT(a)         ((struct debug_point){.kind = DEBUG_SOFT, .addr = (a), .len = 1, .gpa = (a)&0xfff})
#define WATCH(k, a, n)  ((struct debug_point){.kind = (k), .addr = (a), .len = (n), .gpa = DEBUG_UNMAPPED})
#define DR7_SET(i, rwl) (2ull << 2 * (i) | (uint64_t)(rwl) << (16 + 4 * (i)))

static struct mem *mem;
static struct engine_host host;
static struct engine e;

static int set_up(void **state) {
    struct error err = {0};
    uint8_t code[4096];
    memset(code, 0x90, sizeof(code));
    memset(&e, 0, sizeof(e));
    if (mem_create(&mem, &err) || mem_add_ram(mem, GPA(0), sizeof(code), "ram", &err) ||
        mem_write(mem, GPA(0), code, sizeof(code)))
        return -1;
    host.mem = mem;
    e.host = &host;
    return 0;
}

static int tear_down(void **state) {
    kvm_points_destroy(&e);
    mem_destroy(mem);
    return 0;
}

static uint8_t byte_at(uint64_t gpa) {
    uint8_t b = 0;
    mem_read(mem, GPA(gpa), &b, 1);
    return b;
}

static void test_registers(void **state) {
    struct debug_point p[] = {SOFT(0xffff800000000100), WATCH(DEBUG_WRITE, 0x1000, 8), WATCH(DEBUG_ACCESS, 0x2002, 2),
                              WATCH(DEBUG_EXEC, 0x3000, 1)};
    assert_int_equal(kvm_points_set(&e, p, 4), 0);
    // The soft one comes last, so it never takes what only a register can do.
    assert_true(e.points.dr[0] == 0x1000 && e.points.dr[1] == 0x2002 && e.points.dr[2] == 0x3000);
    assert_true(e.points.dr[3] == 0xffff800000000100);
    assert_true(e.points.dr7 == (0x600 | DR7_SET(0, 9) | DR7_SET(1, 7) | DR7_SET(2, 0) | DR7_SET(3, 0)));
    assert_int_equal(e.points.patches, 0);
    assert_int_equal(byte_at(0x100), 0x90);
    assert_int_equal(kvm_points_find(&e, X86_DB, 0, 2)->addr, 0x2002);
    assert_null(kvm_points_find(&e, X86_DB, 0, 1 << 14)); // a single step
    assert_null(kvm_points_find(&e, X86_BP, 0x3000, 0));
}

static void test_a_range_takes_several_registers(void **state) {
    struct debug_point p[] = {WATCH(DEBUG_WRITE, 0x1003, 11)}; // 1 + 4 + 4 + 2
    assert_int_equal(kvm_points_set(&e, p, 1), 0);
    assert_true(e.points.dr[0] == 0x1003 && e.points.dr[1] == 0x1004 && e.points.dr[2] == 0x1008);
    assert_true(e.points.dr[3] == 0x100c && e.points.dr7 >> 16 == 0x5dd1);
    p[0].len = 64;
    assert_int_equal(kvm_points_set(&e, p, 1), -ENOSPC);
    assert_int_equal(e.points.count, 1); // those before
    assert_true(e.points.dr[0] == 0x1003);
    p[0].kind = DEBUG_READ;
    assert_int_equal(kvm_points_set(&e, p, 1), -EOPNOTSUPP);
}

static void test_memory_when_registers_are_gone(void **state) {
    struct debug_point p[6];
    for (unsigned i = 0; i < 6; i++)
        p[i] = SOFT(0x100 + i);
    assert_int_equal(kvm_points_set(&e, p, 6), 0);
    assert_int_equal(byte_at(0x103), 0x90);
    assert_int_equal(byte_at(0x104), 0xcc);
    assert_int_equal(byte_at(0x105), 0xcc);
    assert_int_equal(kvm_points_find(&e, X86_BP, 0x105, 0)->addr, 0x105);
    assert_null(kvm_points_find(&e, X86_BP, 0x106, 0)); // the guest's own
    uint8_t jit = 0x55;
    mem_write(mem, GPA(0x105), &jit, 1); // the guest writes over it
    assert_int_equal(kvm_points_set(&e, p, 4), 0);
    assert_int_equal(byte_at(0x104), 0x90);
    assert_int_equal(byte_at(0x105), 0x55);
}

static void test_nowhere_to_patch(void **state) {
    struct debug_point p[5];
    for (unsigned i = 0; i < 5; i++)
        p[i] = SOFT(0x200 + i);
    p[4].gpa = DEBUG_UNMAPPED;
    assert_int_equal(kvm_points_set(&e, p, 5), -EFAULT);
    p[4].gpa = 0x100000; // no RAM
    assert_int_equal(kvm_points_set(&e, p, 5), -EFAULT);
    assert_int_equal(e.points.count, 0);
    assert_true(e.points.dr7 == 0);
    assert_int_equal(kvm_points_set(&e, NULL, 0), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {T(test_registers), T(test_a_range_takes_several_registers),
                                       T(test_memory_when_registers_are_gone), T(test_nowhere_to_patch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
