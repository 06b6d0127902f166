// SPDX-License-Identifier: Apache-2.0
// Delivery of interrupts and exceptions, and the order of events.
#include "fake_xlate.h"

#define INT_GATE      0x8eu
#define INT_GATE_USER 0xeeu
#define TRAP_GATE     0x8fu

static void test_long_stack_switch_and_iretq(void **state) {
    struct xcpu *x = fake_cpu(true);
    uint64_t sp;

    idt_put(x, 0x20, SEL_CODE0, 0xffff800000009000, INT_GATE, 0);
    user_mode(x);
    x->s.rflags |= RFLAGS_ZF;
    x->s.gpr[X86_RSP] = STACK3 - 3;
    assert_int_equal(intr_deliver_external(x, 0x20), X_OK);

    assert_int_equal(x->s.rip, 0xffff800000009000);
    assert_int_equal(x->cpl, 0);
    assert_int_equal(x->s.seg[X86_CS].sel, SEL_CODE0);
    assert_int_equal(x->s.seg[X86_SS].sel, 0);
    assert_true(x->s.seg[X86_SS].attr & SEG_UNUSABLE);
    assert_false(x->s.rflags & RFLAGS_IF);
    sp = x->s.gpr[X86_RSP];
    assert_int_equal(sp, STACK0 - 40);
    assert_int_equal(get64(sp), 0x7000);
    assert_int_equal(get64(sp + 8), SEL_CODE3);
    assert_int_equal(get64(sp + 16), RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_ZF);
    assert_int_equal(get64(sp + 24), STACK3 - 3);
    assert_int_equal(get64(sp + 32), SEL_DATA3);

    assert_int_equal(sys_iret(x, 8), X_OK);
    assert_int_equal(x->s.rip, 0x7000);
    assert_int_equal(x->cpl, 3);
    assert_int_equal(x->s.gpr[X86_RSP], STACK3 - 3);
    assert_int_equal(x->s.rflags, RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_ZF);
    free(x);
}

static void test_long_ist_and_same_level(void **state) {
    struct xcpu *x = fake_cpu(true);

    idt_put(x, X86_NMI, SEL_CODE0, 0x9000, INT_GATE, 1);
    idt_put(x, 0x30, SEL_CODE0, 0xa000, TRAP_GATE, 0);
    x->s.gpr[X86_RSP] = 0x12345;
    assert_int_equal(intr_deliver_external(x, X86_NMI), X_OK);
    assert_int_equal(x->s.gpr[X86_RSP], IST1 - 40);
    assert_int_equal(get64(IST1 - 16), 0x12345);

    mode_updates = 0; // the fast path of a kernel that interrupts itself derives no mode
    assert_int_equal(intr_deliver_external(x, 0x30), X_OK);
    assert_int_equal(x->s.gpr[X86_RSP], ((IST1 - 40) & ~15u) - 40);
    assert_int_equal(sys_iret(x, 8), X_OK);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.gpr[X86_RSP], IST1 - 40);
    assert_int_equal(mode_updates, 0);
    free(x);
}

static void test_error_codes(void **state) {
    struct xcpu *x = fake_cpu(true);

    idt_put(x, 0x80, SEL_CODE0, 0x9000, INT_GATE, 0);
    user_mode(x);
    assert_fault(x, intr_software(x, 0x80, 0x7002, false), X86_GP, 0x80 * 8 + 2);
    idt_put(x, 0x80, SEL_CODE0, 0x9000, INT_GATE_USER & ~0x80u, 0);
    assert_fault(x, intr_software(x, 0x80, 0x7002, false), X86_NP, 0x80 * 8 + 2);
    x->s.idtr.limit = 0x80 * 16 + 14;
    assert_fault(x, intr_software(x, 0x80, 0x7002, false), X86_GP, 0x80 * 8 + 2);
    x->s.idtr.limit = 0xfff;
    gdt_put(SEL_FREE, make_desc(0, 0xfffff, 0x1b, 0xa)); // code, not present
    idt_put(x, 0x80, SEL_FREE, 0x9000, INT_GATE_USER, 0);
    assert_fault(x, intr_software(x, 0x80, 0x7002, false), X86_NP, SEL_FREE);
    assert_int_equal(x->cpl, 3);
    idt_put(x, 0x80, SEL_CODE0, 0x9000, INT_GATE_USER, 0);
    assert_int_equal(intr_software(x, 0x80, 0x7002, false), X_OK);
    assert_int_equal(get64(x->s.gpr[X86_RSP]), 0x7002);
    free(x);
}

static void test_page_fault_frame(void **state) {
    struct xcpu *x = fake_cpu(true);
    uint64_t sp;

    idt_put(x, X86_PF, SEL_CODE0, 0x9000, INT_GATE, 0);
    user_mode(x);
    fault_page(x, 0xdead000, 6);
    assert_int_equal(intr_deliver_fault(x), X_OK);
    sp = x->s.gpr[X86_RSP];
    assert_int_equal(sp, STACK0 - 48);
    assert_int_equal(get64(sp), 6);
    assert_int_equal(get64(sp + 8), 0x7000);
    assert_true(get64(sp + 24) & RFLAGS_RF); // faults push RF
    assert_int_equal(x->s.cr2, 0xdead000);
    free(x);
}

static void test_double_and_triple_fault(void **state) {
    struct xcpu *x = fake_cpu(true);

    // #PF, whose gate is missing (#GP): double fault, on a stack of its own.
    idt_put(x, X86_DF, SEL_CODE0, 0xd000, INT_GATE, 1);
    fault_page(x, 0x5000, 0);
    assert_int_equal(intr_deliver_fault(x), X_OK);
    assert_int_equal(x->s.rip, 0xd000);
    assert_int_equal(get64(x->s.gpr[X86_RSP]), 0);
    assert_int_equal(x->s.cr2, 0x5000);

    // #GP first, then a #PF on its stack: one after the other, not a double fault.
    kernel_mode(x);
    x->s.rip = 0x7000;
    x->s.gpr[X86_RSP] = HOLE + 0x1000;
    idt_put(x, X86_GP, SEL_CODE0, 0xa000, INT_GATE, 0);
    idt_put(x, X86_PF, SEL_CODE0, 0xb000, INT_GATE, 1);
    gp0(x);
    assert_int_equal(intr_deliver_fault(x), X_OK);
    assert_int_equal(x->s.rip, 0xb000);

    // #UD is benign: the #GP that follows is delivered on its own.
    kernel_mode(x);
    x->s.rip = 0x7000;
    ud(x);
    assert_int_equal(intr_deliver_fault(x), X_OK);
    assert_int_equal(x->s.rip, 0xa000);
    assert_int_equal(get64(x->s.gpr[X86_RSP]), X86_UD * 8 + 2 + 1);

    // No handler at all.
    x->s.idtr.limit = 0;
    ud(x);
    assert_int_equal(intr_deliver_fault(x), X_EXIT);
    assert_int_equal(x->exit.reason, EXIT_SHUTDOWN);
    free(x);
}

static void test_legacy_stack_switch(void **state) {
    struct xcpu *x = fake_cpu(false);

    idt_put(x, 0x20, SEL_CODE0, 0x9000, INT_GATE, 0);
    user_mode(x);
    assert_int_equal(x->code_bits, 32);
    assert_int_equal(intr_deliver_external(x, 0x20), X_OK);
    assert_int_equal(x->s.gpr[X86_RSP], STACK0 - 20);
    assert_int_equal(get32(STACK0 - 4), SEL_DATA3);
    assert_int_equal(get32(STACK0 - 8), STACK3);
    assert_int_equal(get32(STACK0 - 20), 0x7000);
    assert_int_equal(x->cpl, 0);
    assert_int_equal(sys_iret(x, 4), X_OK);
    assert_int_equal(x->cpl, 3);
    assert_int_equal(x->s.gpr[X86_RSP], STACK3);

    put16(TSS + 8, SEL_DATA3); // SS0 of the wrong privilege
    fault_raise(x, X86_UD);
    idt_put(x, X86_UD, SEL_CODE0, 0x9000, INT_GATE, 0);
    idt_put(x, X86_TS, SEL_CODE0, 0x9000, INT_GATE, 0);
    assert_int_equal(intr_deliver_fault(x), X_EXIT); // #TS, then #TS again: double, then triple fault
    assert_int_equal(x->exit.reason, EXIT_SHUTDOWN);
    free(x);
}

static void test_real_mode(void **state) {
    struct xcpu *x = fake_cpu(false);

    x86_state_reset(&x->s, true, false);
    mode_update(x);
    x->s.seg[X86_CS].base = 0x1000;
    x->s.seg[X86_CS].sel = 0x100;
    x->s.rip = 0x50;
    x->s.rflags |= RFLAGS_IF | RFLAGS_TF;
    x->s.gpr[X86_RSP] = 0xabcd0002; // the frame wraps within 64 KiB
    put16(0x10 * 4, 0x1234);
    put16(0x10 * 4 + 2, 0x2000);
    assert_int_equal(intr_software(x, 0x10, 0x52, false), X_OK);
    assert_int_equal(x->s.rip, 0x1234);
    assert_int_equal(x->s.seg[X86_CS].base, 0x20000);
    assert_int_equal(x->s.gpr[X86_RSP], 0xabcdfffc);
    assert_int_equal(get16(0x0), RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_TF);
    assert_int_equal(get16(0xfffe), 0x100);
    assert_int_equal(get16(0xfffc), 0x52);
    assert_false(x->s.rflags & (RFLAGS_IF | RFLAGS_TF));
    assert_int_equal(sys_iret(x, 2), X_OK);
    assert_int_equal(x->s.rip, 0x52);
    assert_int_equal(x->s.gpr[X86_RSP], 0xabcd0002);
    free(x);
}

static void enter_vm86(struct xcpu *x, unsigned iopl) {
    uint32_t frame[9] = {0x60, 0x200, (uint32_t)(RFLAGS_VM | RFLAGS_IF | iopl << 12 | 2), 0x800, 0x300, 0x11, 0x22,
                         0x33, 0x44};

    kernel_mode(x);
    memcpy(mem + x->s.gpr[X86_RSP], frame, sizeof(frame));
    assert_int_equal(sys_iret(x, 4), X_OK);
}

static void test_vm86(void **state) {
    struct xcpu *x = fake_cpu(false);

    enter_vm86(x, 0);
    assert_int_equal(x->cpl, 3);
    assert_int_equal(x->code_bits, 16);
    assert_int_equal(x->s.seg[X86_CS].base, 0x2000);
    assert_int_equal(x->s.seg[X86_GS].sel, 0x44);
    assert_fault(x, intr_software(x, 0x10, 0x62, false), X86_GP, 0);
    assert_fault(x, sys_cli(x), X86_GP, 0);
    assert_fault(x, sys_pushf(x, 2), X86_GP, 0);

    idt_put(x, 0x20, SEL_CODE0, 0x9000, INT_GATE, 0);
    assert_int_equal(intr_deliver_external(x, 0x20), X_OK);
    assert_int_equal(x->s.gpr[X86_RSP], STACK0 - 36);
    assert_int_equal(get32(STACK0 - 4), 0x44);
    assert_int_equal(get32(STACK0 - 36), 0x60);
    assert_true(x->s.seg[X86_DS].attr & SEG_UNUSABLE);
    assert_false(x->s.rflags & RFLAGS_VM);
    free(x);
}

static void test_vme_virtual_interrupt_flag(void **state) {
    struct xcpu *x = fake_cpu(false);

    enter_vm86(x, 0);
    x->s.cr4 |= CR4_VME;
    assert_int_equal(sys_sti(x), X_OK);
    assert_true(x->s.rflags & RFLAGS_VIF);
    assert_int_equal(sys_pushf(x, 2), X_OK);
    assert_int_equal(get16(0x3000 + 0x7fe) & (RFLAGS_IF | RFLAGS_IOPL), RFLAGS_IF | RFLAGS_IOPL);
    // All bits of the redirection bitmap are clear: INT n goes to the program's own vector table at 0.
    put16(TSS + 102, 0x88);
    x->s.seg[X86_TR].limit = 0x200;
    put16(0x10 * 4, 0x1234);
    put16(0x10 * 4 + 2, 0x100);
    assert_int_equal(intr_software(x, 0x10, 0x62, false), X_OK);
    assert_int_equal(x->s.rip, 0x1234);
    assert_false(x->s.rflags & RFLAGS_VIF);
    assert_true(x->s.rflags & RFLAGS_VM);
    x->s.rflags |= RFLAGS_VIP;
    assert_fault(x, sys_sti(x), X86_GP, 0);
    free(x);
}

static void test_poll_order(void **state) {
    struct xcpu *x = fake_cpu(true);

    idt_put(x, X86_NMI, SEL_CODE0, 0x9000, INT_GATE, 1);
    idt_put(x, 0x41, SEL_CODE0, 0xa000, INT_GATE, 0);
    x->s.rflags |= RFLAGS_IF;
    irq_vector = 0x41;
    chip_events = IRQCHIP_NMI;
    x->s.activity = X86_HALTED;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.nmi_blocked, 1);
    chip_events = IRQCHIP_NMI; // a second one waits for IRET
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.nmi_pending, 1);
    x->s.nmi_pending = 0;

    assert_int_equal(sys_iret(x, 8), X_OK); // opens the window for both
    assert_true(exit_requested(x));
    x->s.intr_shadow = 1;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0x7000);
    assert_true(exit_requested(x)); // not lost behind the shadow
    x->s.intr_shadow = 0;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0xa000);
    assert_int_equal(irq_vector, -1);
    free(x);
}

// An interrupt that another engine had already acknowledged comes without asking the chip, and once.
static void test_taken_elsewhere(void **state) {
    struct xcpu *x = fake_cpu(true);

    idt_put(x, 0x41, SEL_CODE0, 0xa000, INT_GATE, 0);
    irq_vector = -1;
    x->s.intr_taken = 1;
    x->s.intr_vector = 0x41;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0xa000);
    assert_int_equal(x->s.intr_taken, 0);
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0xa000);
    free(x);
}

static void test_poll_states(void **state) {
    struct xcpu *x = fake_cpu(true);

    x->s.activity = X86_HALTED;
    assert_int_equal(intr_poll(x), X_EXIT);
    assert_int_equal(x->exit.reason, EXIT_HALT);
    atomic_store(&x->kicked, 1);
    assert_int_equal(intr_poll(x), X_EXIT);
    assert_int_equal(x->exit.reason, EXIT_KICKED);

    x->index = 1;
    chip_events = IRQCHIP_INIT;
    assert_int_equal(intr_poll(x), X_EXIT);
    assert_int_equal(x->exit.reason, EXIT_WAIT_SIPI);
    chip_events = IRQCHIP_SIPI | 0x9a << 8;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.seg[X86_CS].base, 0x9a000);
    assert_int_equal(x->s.rip, 0);
    free(x);
}

static void test_debug(void **state) {
    struct xcpu *x = fake_cpu(true);

    idt_put(x, X86_DB, SEL_CODE0, 0x9000, INT_GATE, 0);
    x->s.dr[0] = 0x7000;
    x->s.dr[1] = 0x5006;
    x->s.dr7 = DR7_FIXED | 2 | 8 | 0xdull << 20; // 0: execute; 1: write, four bytes
    assert_int_equal(debug_before(x, 0x7001), X_OK);
    assert_int_equal(debug_before(x, 0x7000), X_FAULT);
    assert_int_equal(x->fault.dr6, 1);
    x->s.rflags |= RFLAGS_RF;
    assert_int_equal(debug_before(x, 0x7000), X_OK);
    x->s.rflags &= ~RFLAGS_RF;

    assert_true(debug_data_active(x));
    debug_data_access(x, 0x5004, 4, false);
    debug_data_access(x, 0x5008, 4, true);
    debug_data_access(x, 0x5000, 4, true);
    assert_int_equal(x->s.debug_pending, 0);
    debug_data_access(x, 0x5000, 8, true); // overlaps 5004..5007
    debug_after(x, true);
    assert_int_equal(x->s.debug_pending_dr6, 2 | DR6_BS);

    x->s.intr_shadow = 2; // after MOV SS the trap waits one instruction
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0x7000);
    x->s.intr_shadow = 0;
    assert_int_equal(intr_poll(x), X_OK);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.dr6 & 0xffff, (DR6_FIXED & 0xffff) | 2 | DR6_BS);
    assert_int_equal(x->s.debug_pending, 0);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_stack_switch_and_iretq),
        cmocka_unit_test(test_long_ist_and_same_level),
        cmocka_unit_test(test_error_codes),
        cmocka_unit_test(test_page_fault_frame),
        cmocka_unit_test(test_double_and_triple_fault),
        cmocka_unit_test(test_legacy_stack_switch),
        cmocka_unit_test(test_real_mode),
        cmocka_unit_test(test_vm86),
        cmocka_unit_test(test_vme_virtual_interrupt_flag),
        cmocka_unit_test(test_poll_order),
        cmocka_unit_test(test_taken_elsewhere),
        cmocka_unit_test(test_poll_states),
        cmocka_unit_test(test_debug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
