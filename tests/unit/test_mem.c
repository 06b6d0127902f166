// SPDX-License-Identifier: Apache-2.0
// Guest memory: bounds, overflow, ROM, dirty log, listeners. Layout of the fixture:
//   RAM 0..2 MiB, RAM 2..3 MiB (adjacent), hole, ROM at 4 MiB of 64 KiB, RAM at 4 GiB of 1 MiB.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mem.h"

#define MIB      (1ull << 20)
#define ROM_BASE (4 * MIB)
#define HIGH     (1ull << 32)

static int setup(void **state) {
    struct mem *mem;
    struct error err;

    // Not in order of address: slots must be sorted all the same.
    if (mem_create(&mem, &err) || mem_add_ram(mem, GPA(HIGH), MIB, "high", &err) ||
        mem_add_ram(mem, GPA(2 * MIB), MIB, "second", &err) || mem_add_ram(mem, GPA(0), 2 * MIB, "low", &err) ||
        mem_add_rom(mem, GPA(ROM_BASE), 0x10000, "rom", &err))
        return -1;
    *state = mem;
    return 0;
}

static int teardown(void **state) {
    mem_destroy(*state);
    return 0;
}

static void test_add_checks(void **state) {
    struct mem *mem = *state;
    struct error err;
    unsigned n;

    assert_int_equal(mem_add_ram(mem, GPA(3 * MIB - PAGE_SIZE), PAGE_SIZE, "x", &err), -EEXIST);
    assert_int_equal(mem_add_ram(mem, GPA(3 * MIB), 2 * MIB, "x", &err), -EEXIST);
    assert_int_equal(mem_add_ram(mem, GPA(3 * MIB), 0, "x", &err), -EINVAL);
    assert_int_equal(mem_add_ram(mem, GPA(3 * MIB + 1), PAGE_SIZE, "x", &err), -EINVAL);
    assert_int_equal(mem_add_ram(mem, GPA(3 * MIB), 100, "x", &err), -EINVAL);
    assert_int_equal(mem_add_ram(mem, GPA(0 - PAGE_SIZE), PAGE_SIZE, "x", &err), -EINVAL);
    assert_int_equal(mem_add_ram(mem, GPA(8 * MIB), 0 - PAGE_SIZE, "x", &err), -EINVAL);
    const struct mem_slot *s = mem_slots(mem, &n);
    assert_int_equal(n, 4);
    for (unsigned i = 1; i < n; i++)
        assert_true(s[i - 1].gpa + s[i - 1].size <= s[i].gpa);
    assert_int_equal(mem_ram_size(mem), 4 * MIB);
    assert_int_equal(mem_ram_below_4g(mem), 3 * MIB);
    assert_int_equal(fcntl(s[0].fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
    assert_int_equal(ftruncate(s[0].fd, 0), -1);
}

static void test_map_bounds(void **state) {
    struct mem *mem = *state;
    struct iovec iov[4];

    assert_int_equal(mem_map(mem, GPA(100), 200, MEM_RW, iov, 4), 1);
    assert_int_equal(iov[0].iov_len, 200);
    assert_int_equal(mem_map(mem, GPA(0), 2 * MIB, MEM_RW, iov, 1), 1);
    assert_int_equal(mem_map(mem, GPA(2 * MIB - 10), 30, MEM_RW, iov, 4), 2);
    assert_int_equal(iov[0].iov_len, 10);
    assert_int_equal(iov[1].iov_len, 20);
    assert_int_equal(mem_map(mem, GPA(2 * MIB - 10), 30, MEM_RW, iov, 1), -ENOBUFS);
    assert_int_equal(mem_map(mem, GPA(3 * MIB - 10), 10, MEM_RW, iov, 4), 1);
    assert_int_equal(mem_map(mem, GPA(3 * MIB - 10), 11, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(3 * MIB), 1, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(0), 0, MEM_READ, iov, 0), 0);
}

static void test_map_overflow(void **state) {
    struct mem *mem = *state;
    struct iovec iov[4];
    uint8_t b[16] = {0};

    assert_int_equal(mem_map(mem, GPA(UINT64_MAX), 2, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(8), UINT64_MAX, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(8), UINT64_MAX - 8, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(0ull - 8), 16, MEM_READ, iov, 4), -EFAULT);
    assert_int_equal(mem_read(mem, GPA(0ull - 8), b, 16), -EFAULT);
    assert_int_equal(mem_write(mem, GPA(UINT64_MAX - 3), b, 8), -EFAULT);
}

static void test_copy_is_all_or_nothing(void **state) {
    struct mem *mem = *state;
    uint8_t in[32], out[32] = {0};

    memset(in, 0x5a, sizeof(in));
    assert_int_equal(mem_write(mem, GPA(3 * MIB - 16), in, 32), -EFAULT);
    assert_int_equal(mem_read(mem, GPA(3 * MIB - 16), out, 16), 0);
    for (int i = 0; i < 16; i++)
        assert_int_equal(out[i], 0);
    memset(out, 0x11, sizeof(out));
    assert_int_equal(mem_read(mem, GPA(3 * MIB - 16), out, 32), -EFAULT);
    assert_int_equal(out[0], 0x11);
    // Over the border of two adjacent blocks.
    assert_int_equal(mem_write(mem, GPA(2 * MIB - 16), in, 32), 0);
    assert_int_equal(mem_read(mem, GPA(2 * MIB - 16), out, 32), 0);
    assert_memory_equal(in, out, 32);
    assert_int_equal(*mem_page(mem, 2 * MIB, false), 0x5a);
}

static void test_rom(void **state) {
    struct mem *mem = *state;
    struct iovec iov[1];
    uint8_t b = 0xea, back = 0;

    assert_int_equal(mem_write(mem, GPA(ROM_BASE), &b, 1), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(ROM_BASE), 1, MEM_WRITE, iov, 1), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(ROM_BASE), 1, MEM_RW, iov, 1), -EFAULT);
    assert_int_equal(mem_map(mem, GPA(ROM_BASE), 1, MEM_READ, iov, 1), 1);
    assert_null(mem_page(mem, ROM_BASE, true));
    assert_int_equal(mem_load(mem, GPA(ROM_BASE + 0xffff), &b, 1), 0);
    assert_int_equal(mem_load(mem, GPA(ROM_BASE + 0x10000), &b, 1), -EFAULT);
    assert_int_equal(mem_read(mem, GPA(ROM_BASE + 0xffff), &back, 1), 0);
    assert_int_equal(back, 0xea);
}

static void test_page_lookup(void **state) {
    struct mem *mem = *state;
    const struct mem_slot *high = mem_find_slot(mem, HIGH + 5);

    assert_non_null(high);
    assert_int_equal(high->gpa, HIGH);
    assert_ptr_equal(mem_page(mem, HIGH + 0x1fff, false), high->hva + 0x1000);
    assert_null(mem_find_slot(mem, 3 * MIB));
    assert_null(mem_find_slot(mem, HIGH - 1));
    assert_null(mem_find_slot(mem, HIGH + MIB));
    assert_null(mem_page(mem, UINT64_MAX, false));
    assert_int_equal(mem_find_slot(mem, 0)->gpa, 0);
    assert_int_equal(mem_find_slot(mem, 2 * MIB - 1)->gpa, 0);
    assert_int_equal(mem_find_slot(mem, 2 * MIB)->gpa, 2 * MIB);
}

static uint64_t fetch(struct mem *mem, uint64_t gpa, unsigned long *bits) {
    return mem_dirty_fetch(mem, mem_find_slot(mem, gpa), bits);
}

static void test_dirty_log(void **state) {
    struct mem *mem = *state;
    unsigned long bits[8]; // 512 pages
    uint8_t b = 1;

    fetch(mem, 0, bits);
    fetch(mem, 2 * MIB, bits);
    assert_int_equal(fetch(mem, 0, bits), 0);
    mem_page(mem, 0x5123, false); // reading marks nothing
    assert_int_equal(fetch(mem, 0, bits), 0);
    mem_page(mem, 0x5123, true);
    mem_page(mem, 0x5fff, true);
    mem_write(mem, GPA(65 * PAGE_SIZE - 1), "ab", 2);
    assert_int_equal(fetch(mem, 0, bits), 3);
    assert_int_equal(bits[0], 1ul << 5);
    assert_int_equal(bits[1], 3ul);
    assert_int_equal(fetch(mem, 0, bits), 0);
    mem_unmap(mem, GPA(2 * MIB - 1), 2, true); // over two blocks
    assert_int_equal(fetch(mem, 0, bits), 1);
    assert_int_equal(bits[7], 1ul << 63);
    assert_int_equal(fetch(mem, 2 * MIB, bits), 1);
    assert_false(mem_has_checkpoint(mem));
    mem_checkpoint(mem, mem_find_slot(mem, 0));
    assert_true(mem_has_checkpoint(mem));
    mem_unmap(mem, GPA(0), 4096, false);
    mem_unmap(mem, GPA(0), 0, true);
    mem_mark_dirty(mem, GPA(3 * MIB), UINT64_MAX); // wraps: everything above 3 MiB, nothing below
    assert_int_equal(fetch(mem, 0, bits), 0);
    assert_int_equal(fetch(mem, HIGH, bits), 256);
    assert_int_equal(mem_write(mem, GPA(3 * MIB), &b, 1), -EFAULT);
}

struct heard {
    unsigned calls;
    uint64_t gpa, len;
};

static void on_written(void *ctx, gpa_t gpa, uint64_t len) {
    struct heard *h = ctx;

    h->calls++;
    h->gpa = gpa.v;
    h->len = len;
}

static void test_listener(void **state) {
    struct mem *mem = *state;
    static struct heard one, two;
    static struct mem_listener l1 = {.written = on_written, .ctx = &one};
    static struct mem_listener l2 = {.written = on_written, .ctx = &two};
    uint8_t b[8] = {0};

    mem_add_listener(mem, &l1);
    mem_add_listener(mem, &l2);
    mem_write(mem, GPA(0x1234), b, 8);
    assert_true(one.calls == 1 && two.calls == 1 && one.gpa == 0x1234 && one.len == 8);
    mem_load(mem, GPA(ROM_BASE), b, 4);
    assert_true(one.calls == 2 && one.gpa == ROM_BASE && one.len == 4);
    mem_unmap(mem, GPA(0x2000), 3, true);
    assert_true(one.calls == 3 && one.gpa == 0x2000 && one.len == 3);
    mem_read(mem, GPA(0x1234), b, 8);
    mem_unmap(mem, GPA(0x2000), 3, false);
    mem_unmap(mem, GPA(0x2000), 0, true);
    mem_write(mem, GPA(3 * MIB - 4), b, 8); // fails: nothing happened
    mem_page(mem, 0, true);                 // the engine's own write
    assert_int_equal(one.calls, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_checks),   cmocka_unit_test(test_map_bounds),
        cmocka_unit_test(test_map_overflow), cmocka_unit_test(test_copy_is_all_or_nothing),
        cmocka_unit_test(test_rom),          cmocka_unit_test(test_page_lookup),
        cmocka_unit_test(test_dirty_log),    cmocka_unit_test(test_listener),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
