// SPDX-License-Identifier: Apache-2.0
// Reset states of the processor, and the paravirtual clock in guest memory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/kvmclock.h"

static void test_power_on(void **state) {
    struct cpu_state s;

    memset(&s, 0xff, sizeof(s));
    x86_state_reset(&s, true, false);
    assert_int_equal(s.seg[X86_CS].base + s.rip, 0xfffffff0);
    assert_int_equal(s.cr0, 0x60000010);
    assert_int_equal(s.rflags, 2);
    assert_int_equal(s.dr6, 0xffff0ff0);
    assert_int_equal(s.pat, 0x0007040600070406);
    assert_int_equal(s.xcr0, 1);
    assert_int_equal(s.tsc_offset, 0);
    assert_int_equal(s.activity, X86_ACTIVE);
    x86_state_reset(&s, false, false);
    assert_int_equal(s.activity, X86_WAIT_SIPI);
}

static void test_init_keeps_what_it_should(void **state) {
    struct cpu_state s;

    x86_state_reset(&s, true, false);
    s.cr0 = CR0_PE | CR0_PG | CR0_NW | CR0_CD | CR0_ET;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LMA | EFER_LME;
    s.pat = 0x123;
    s.xcr0 = 7;
    s.tsc_offset = 99;
    s.nmi_blocked = 1;
    s.xsave[0] = 0x77;
    x86_state_reset(&s, false, true);
    assert_int_equal(s.cr0, CR0_NW | CR0_CD | CR0_ET);
    assert_int_equal(s.cr4 | s.efer | s.nmi_blocked, 0);
    assert_int_equal(s.pat, 0x123);
    assert_int_equal(s.xcr0, 7);
    assert_int_equal(s.tsc_offset, 99);
    assert_int_equal(s.xsave[0], 0x77);
    assert_int_equal(s.activity, X86_WAIT_SIPI);
    x86_state_sipi(&s, 0x9f);
    assert_int_equal(s.seg[X86_CS].base, 0x9f000);
    assert_int_equal(s.seg[X86_CS].sel, 0x9f00);
    assert_int_equal(s.rip, 0);
    assert_int_equal(s.activity, X86_ACTIVE);
}

static void test_clock_scale(void **state) {
    static const uint64_t hz[] = {1, 999999999, 1000000000, 1000000001, 2000000000, 2600000000, 4999999999};

    for (unsigned i = 0; i < sizeof(hz) / sizeof(hz[0]); i++) {
        uint64_t seconds = 1000, ns = kvmclock_ns(hz[i], hz[i] * seconds);
        uint64_t want = seconds * 1000000000, off = ns > want ? ns - want : want - ns;

        assert_true(off < 2000); // 2e-9 relative
    }
    assert_int_equal(kvmclock_ns(2600000000, 0), 0);
}

struct time_info {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};

static void test_clock_in_guest_memory(void **state) {
    const uint64_t hz = 2600000000;
    struct cpu_state s = {0};
    struct time_info t;
    uint32_t wall[3];
    struct mem *mem;
    struct error err;

    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(0), 0x10000, "ram", &err), 0);
    s.tsc_adjust = 500;
    s.kvmclock_system_time = 0x2000; // not enabled
    kvmclock_update(&s, mem, hz);
    assert_int_equal(mem_read(mem, GPA(0x2000), &t, sizeof(t)), 0);
    assert_int_equal(t.version, 0);
    s.kvmclock_system_time |= 1;
    kvmclock_update(&s, mem, hz);
    kvmclock_update(&s, mem, hz);
    assert_int_equal(mem_read(mem, GPA(0x2000), &t, sizeof(t)), 0);
    assert_int_equal(t.version, 4); // even, two updates
    assert_int_equal(t.flags, 1);
    // One second after TSC 500, by the guest's arithmetic.
    uint64_t delta = 500 + hz - t.tsc_timestamp;
    delta = t.shift < 0 ? delta >> -t.shift : delta << t.shift;
    uint64_t ns = t.system_time + (uint64_t)((unsigned __int128)delta * t.mul >> 32);
    assert_in_range(ns, 999999998, 1000000000);

    s.kvmclock_wall = 0x3000;
    kvmclock_update_wall(&s, mem, hz, 500 + 2 * hz, 1700000002000000000ull);
    assert_int_equal(mem_read(mem, GPA(0x3000), wall, sizeof(wall)), 0);
    assert_int_equal(wall[0], 2);
    assert_int_equal(wall[1], 1700000000);
    s.kvmclock_system_time = 0xfff0000000000001ull; // nowhere: ignored
    kvmclock_update(&s, mem, hz);
    mem_destroy(mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_on),
        cmocka_unit_test(test_init_keeps_what_it_should),
        cmocka_unit_test(test_clock_scale),
        cmocka_unit_test(test_clock_in_guest_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
