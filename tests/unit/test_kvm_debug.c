// SPDX-License-Identifier: Apache-2.0
// A debugger's points and steps on KVM, in user mode: a /dev/kvm without hardware behind it runs that natively, so
// debug registers and INT3 are the processor's there too.
#include "kvm_rig.h"

#define CODE 0x1000u
#define DATA 0x2000u

// 32-bit user code at CODE: nop; mov [DATA], al; nop; inc eax; int3; hlt
static const uint8_t code[] = {0x90, 0xa2, 0x00, 0x20, 0x00, 0x00, 0x90, 0x40, 0xcc, 0xf4};
enum { STORE = CODE + 1, BEHIND = CODE + 6, INC = CODE + 7, OWN = CODE + 8 };

static struct rig *user_guest(void) {
    struct rig *r = rig_new("irqchip=user");
    struct cpu_state s;

    x86_state_reset(&s, true, false);
    s.cr0 |= CR0_PE;
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        s.seg[i] = (struct x86_segment){.limit = 0xffffffff, .attr = 0xc0f3, .sel = 0x2b};
    s.seg[X86_CS] = (struct x86_segment){.limit = 0xffffffff, .attr = 0xc0fb, .sel = 0x23};
    s.seg[X86_TR] = (struct x86_segment){.limit = 0x67, .attr = 0x8b};
    s.idtr.limit = 0; // an exception ends it
    s.rip = CODE;
    s.gpr[X86_RSP] = 0x8000;
    assert_int_equal(mem_write(r->host.mem, GPA(CODE), code, sizeof(code)), 0);
    rig_set(r, 0, &s);
    return r;
}

// A KVM that emulates its guest (docs/KVM.md) looks for breakpoints in debug registers, and for no other point.
static struct rig *user_guest_on_hardware(void) {
    struct rig *r = user_guest();
    struct error err = {0};
    uint64_t speed = 0;

    if (r->ops->probe(&speed, &err) || speed < 20000000) {
        rig_free(r);
        skip();
    }
    return r;
}

static struct vm_exit run(struct rig *r) {
    struct vm_exit e = {.reason = EXIT_NONE};

    r->ops->run(r->vcpu[0], BUDGET_UNLIMITED, &e);
    return e;
}

static uint64_t rip(struct rig *r) {
    struct cpu_state s;

    rig_get(r, 0, &s);
    return s.rip;
}

static void set(struct rig *r, enum debug_kind kind, uint64_t addr, uint64_t len) {
    struct debug_point p = {.kind = kind, .addr = addr, .len = len, .gpa = addr};

    assert_int_equal(r->ops->debug_points(r->engine, &p, 1), 0);
}

static void stops(struct rig *r, enum debug_kind kind, uint64_t addr, uint64_t at) {
    struct vm_exit e = run(r);

    assert_int_equal(e.reason, EXIT_DEBUG);
    assert_int_equal(e.debug.kind, kind);
    assert_int_equal(e.debug.addr, addr);
    assert_int_equal(rip(r), at);
}

static void test_steps(void **state) {
    struct rig *r = user_guest();

    r->ops->debug_step(r->vcpu[0], DEBUG_STEP_MASKED);
    stops(r, DEBUG_STEPPED, 0, STORE);
    stops(r, DEBUG_STEPPED, 0, BEHIND);
    r->ops->debug_step(r->vcpu[0], DEBUG_RUN);
    assert_int_equal(run(r).reason, EXIT_SHUTDOWN); // its own INT3, which was never ours
    rig_free(r);
}

static void test_breakpoint_in_a_register(void **state) {
    struct rig *r = user_guest();

    set(r, DEBUG_EXEC, INC, 1);
    stops(r, DEBUG_EXEC, INC, INC);
    r->ops->debug_points(r->engine, NULL, 0);
    assert_int_equal(run(r).reason, EXIT_SHUTDOWN);
    rig_free(r);
}

static void test_watchpoint(void **state) {
    struct rig *r = user_guest_on_hardware();

    set(r, DEBUG_WRITE, DATA - 1, 3); // two registers
    stops(r, DEBUG_WRITE, DATA - 1, BEHIND);
    set(r, DEBUG_WRITE, DATA + 8, 8);
    assert_int_equal(run(r).reason, EXIT_SHUTDOWN);
    rig_free(r);
}

// The fifth is in memory. Its INT3 is ours, the one behind it the guest's.
static void test_breakpoint_in_memory(void **state) {
    struct rig *r = user_guest_on_hardware();
    struct debug_point p[5];
    uint8_t byte = 0;

    for (unsigned i = 0; i < 5; i++)
        p[i] = (struct debug_point){.kind = DEBUG_SOFT, .addr = i < 4 ? 0x100 + i : INC, .len = 1};
    p[4].gpa = INC;
    assert_int_equal(r->ops->debug_points(r->engine, p, 5), 0);
    stops(r, DEBUG_SOFT, INC, INC);
    stops(r, DEBUG_SOFT, INC, INC); // every time
    assert_int_equal(r->ops->debug_points(r->engine, p, 4), 0);
    mem_read(r->host.mem, GPA(INC), &byte, 1);
    assert_int_equal(byte, 0x40);
    r->ops->debug_step(r->vcpu[0], DEBUG_STEP);
    stops(r, DEBUG_STEPPED, 0, OWN);
    r->ops->debug_step(r->vcpu[0], DEBUG_RUN);
    p[4].addr = p[4].gpa = CODE; // INT3 of ours about: all come to us first
    assert_int_equal(r->ops->debug_points(r->engine, p, 5), 0);
    assert_int_equal(run(r).reason, EXIT_SHUTDOWN);
    rig_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_breakpoint_in_a_register),
        cmocka_unit_test(test_watchpoint),
        cmocka_unit_test(test_breakpoint_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
