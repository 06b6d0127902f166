// SPDX-License-Identifier: Apache-2.0
// Segment loads and control transfers between privilege levels.
#include "fake_xlate.h"

static void test_segment_load_checks(void **state) {
    struct xcpu *x = fake_cpu(false);

    gdt_put(SEL_FREE, make_desc(0x12345678, 0x0ffff, 0x92, 0x8)); // DPL 0, G, not yet accessed
    assert_int_equal(seg_load(x, X86_DS, SEL_FREE), X_OK);
    assert_int_equal(x->s.seg[X86_DS].base, 0x12345678);
    assert_int_equal(x->s.seg[X86_DS].limit, 0x0fffffff);
    assert_int_equal(x->s.seg[X86_DS].attr & 0x80ff, 0x8093);
    assert_int_equal(mem[GDT + SEL_FREE + 5], 0x93); // accessed, in memory too

    assert_fault(x, seg_load(x, X86_DS, SEL_FREE | 3), X86_GP, SEL_FREE); // RPL > DPL
    assert_fault(x, seg_load(x, X86_SS, SEL_FREE | 3), X86_GP, SEL_FREE);
    assert_fault(x, seg_load(x, X86_SS, 0), X86_GP, 0);
    assert_fault(x, seg_load(x, X86_SS, SEL_CODE0), X86_GP, SEL_CODE0);
    assert_fault(x, seg_load(x, X86_ES, 0x80), X86_GP, 0x80);                 // beyond the limit
    assert_fault(x, seg_load(x, X86_ES, SEL_FREE | 4), X86_GP, SEL_FREE | 4); // no LDT
    assert_fault(x, seg_load(x, X86_ES, SEL_TSS), X86_GP, SEL_TSS);
    gdt_put(SEL_FREE, make_desc(0, 0xffff, 0x12, 0));
    assert_fault(x, seg_load(x, X86_ES, SEL_FREE), X86_NP, SEL_FREE);
    assert_fault(x, seg_load(x, X86_SS, SEL_FREE), X86_SS_FAULT, SEL_FREE);
    assert_int_equal(x->s.seg[X86_ES].sel, SEL_DATA0);

    user_mode(x);
    assert_fault(x, seg_load(x, X86_FS, SEL_DATA0), X86_GP, SEL_DATA0);
    assert_int_equal(seg_load(x, X86_FS, 3), X_OK);
    assert_true(x->s.seg[X86_FS].attr & SEG_UNUSABLE);
    free(x);
}

static void test_null_ss_keeps_cpl(void **state) {
    struct xcpu *x = fake_cpu(true);

    assert_int_equal(seg_load(x, X86_SS, 0), X_OK);
    assert_int_equal(x->cpl, 0);
    user_mode(x);
    assert_fault(x, seg_load(x, X86_SS, 3), X86_GP, 0);
    assert_int_equal(x->cpl, 3);
    free(x);
}

static void test_syscall_sysret(void **state) {
    struct xcpu *x = fake_cpu(true);

    x->s.star = (uint64_t)SEL_CODE3_32 << 48 | (uint64_t)SEL_CODE0 << 32;
    x->s.lstar = 0xffffffff81000000;
    x->s.fmask = RFLAGS_IF | RFLAGS_DF | RFLAGS_AC;
    user_mode(x);
    x->s.rflags |= RFLAGS_DF | RFLAGS_CF;
    assert_int_equal(sys_syscall(x, 0x7002), X_OK);
    assert_int_equal(x->s.rip, 0xffffffff81000000);
    assert_int_equal(x->s.gpr[X86_RCX], 0x7002);
    assert_int_equal(x->s.gpr[X86_R11], RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_DF | RFLAGS_CF);
    assert_int_equal(x->s.rflags, RFLAGS_FIXED1 | RFLAGS_CF);
    assert_int_equal(x->s.seg[X86_CS].sel, SEL_CODE0);
    assert_int_equal(x->s.seg[X86_SS].sel, SEL_DATA0);
    assert_int_equal(x->cpl, 0);
    assert_int_equal(x->code_bits, 64);
    assert_int_equal(x->s.gpr[X86_RSP], STACK3);

    x->s.gpr[X86_RCX] = 0x0000800000000000;
    assert_fault(x, sys_sysret(x, true), X86_GP, 0);
    assert_int_equal(x->cpl, 0);
    x->s.gpr[X86_RCX] = 0x7002;
    assert_int_equal(sys_sysret(x, true), X_OK);
    assert_int_equal(x->s.rip, 0x7002);
    assert_int_equal(x->s.seg[X86_CS].sel, SEL_CODE3);
    assert_int_equal(x->s.seg[X86_SS].sel, SEL_DATA3);
    assert_int_equal(x->cpl, 3);
    assert_fault(x, sys_sysret(x, true), X86_GP, 0);
    x->s.efer &= ~EFER_SCE;
    assert_int_equal(sys_syscall(x, 0x7004), X_FAULT);
    assert_int_equal(x->fault.vector, X86_UD);
    free(x);
}

static void test_iret_checks(void **state) {
    struct xcpu *x = fake_cpu(true);
    uint64_t sp = x->s.gpr[X86_RSP];

    put64(sp, 0x0000800000000000); // not canonical
    put64(sp + 8, SEL_CODE3);
    put64(sp + 16, 2);
    put64(sp + 24, STACK3);
    put64(sp + 32, SEL_DATA3);
    assert_fault(x, sys_iret(x, 8), X86_GP, 0);
    put64(sp, 0x8000);
    put64(sp + 32, SEL_DATA0 | 3); // DPL 0
    assert_fault(x, sys_iret(x, 8), X86_GP, SEL_DATA0);
    put64(sp + 8, SEL_DATA3);
    assert_fault(x, sys_iret(x, 8), X86_GP, SEL_DATA3 & ~3u);
    x->s.rflags |= RFLAGS_NT;
    assert_fault(x, sys_iret(x, 8), X86_GP, 0);
    x->s.rflags &= ~RFLAGS_NT;
    assert_int_equal(x->s.gpr[X86_RSP], sp);

    // To compatibility mode: inner data segments are dropped.
    put64(sp + 8, SEL_CODE3_32);
    put64(sp + 32, SEL_DATA3);
    assert_int_equal(seg_load(x, X86_ES, SEL_DATA3), X_OK);
    assert_int_equal(sys_iret(x, 8), X_OK);
    assert_int_equal(x->code_bits, 32);
    assert_true(x->s.seg[X86_DS].attr & SEG_UNUSABLE);
    assert_int_equal(x->s.seg[X86_ES].sel, SEL_DATA3);
    free(x);
}

static uint64_t call_gate(uint16_t sel, uint32_t off, unsigned access, unsigned params) {
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)access << 40 |
           (uint64_t)(off >> 16) << 48;
}

static void test_call_gate_with_parameters(void **state) {
    struct xcpu *x = fake_cpu(false);

    gdt_put(SEL_FREE, call_gate(SEL_CODE0, 0x9000, 0xec, 2));
    user_mode(x);
    put32(STACK3 - 8, 0x1111);
    put32(STACK3 - 4, 0x2222);
    x->s.gpr[X86_RSP] = STACK3 - 8;
    assert_int_equal(seg_load_far_code(x, SEL_FREE | 3, 0xdeadbeef, true, 4, 0x7007), X_OK);
    assert_int_equal(x->cpl, 0);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.gpr[X86_RSP], STACK0 - 24);
    assert_int_equal(get32(STACK0 - 24), 0x7007);
    assert_int_equal(get32(STACK0 - 20), SEL_CODE3_32);
    assert_int_equal(get32(STACK0 - 16), 0x1111);
    assert_int_equal(get32(STACK0 - 12), 0x2222);
    assert_int_equal(get32(STACK0 - 8), STACK3 - 8);
    assert_int_equal(get32(STACK0 - 4), SEL_DATA3);

    assert_int_equal(xfer_ret_far(x, 4, 8), X_OK);
    assert_int_equal(x->cpl, 3);
    assert_int_equal(x->s.rip, 0x7007);
    assert_int_equal(x->s.gpr[X86_RSP], STACK3); // parameters released on both stacks

    gdt_put(SEL_FREE, call_gate(SEL_CODE0, 0x9000, 0x8c, 0)); // gate of DPL 0
    assert_fault(x, seg_load_far_code(x, SEL_FREE | 3, 0, true, 4, 0x7007), X86_GP, SEL_FREE);
    gdt_put(SEL_FREE, call_gate(SEL_CODE0, 0x9000, 0xec, 0));
    assert_fault(x, seg_load_far_code(x, SEL_FREE | 3, 0, false, 4, 0x7007), X86_GP,
                 SEL_CODE0); // JMP does not go inward
    assert_fault(x, seg_load_far_code(x, SEL_CODE0, 0, false, 4, 0), X86_GP, SEL_CODE0);
    assert_fault(x, seg_load_far_code(x, 0, 0, false, 4, 0), X86_GP, 0);
    free(x);
}

static void test_call_gate_long(void **state) {
    struct xcpu *x = fake_cpu(true);

    gdt_put(SEL_FREE, call_gate(SEL_CODE0, 0x80009000, 0xec, 0));
    put64(GDT + SEL_FREE + 8, 0xffffffff);
    user_mode(x);
    assert_int_equal(seg_load_far_code(x, SEL_FREE | 3, 0, true, 4, 0x7007), X_OK);
    assert_int_equal(x->s.rip, 0xffffffff80009000);
    assert_int_equal(x->s.gpr[X86_RSP], STACK0 - 32);
    assert_int_equal(get64(STACK0 - 32), 0x7007);
    assert_int_equal(get64(STACK0 - 8), SEL_DATA3);
    assert_int_equal(xfer_ret_far(x, 8, 0), X_OK);
    assert_int_equal(x->cpl, 3);
    assert_int_equal(x->code_bits, 64);
    free(x);
}

static void test_stack_limits(void **state) {
    struct xcpu *x = fake_cpu(false);

    gdt_put(SEL_FREE, make_desc(0, 0xfff, 0x92, 4)); // 4 KiB, expand-up
    assert_int_equal(seg_load(x, X86_SS, SEL_FREE), X_OK);
    x->s.gpr[X86_RSP] = 0x1004;
    assert_fault(x, seg_load_far_code(x, SEL_CODE0, 0x100, true, 4, 0x7007), X86_SS_FAULT, 0);
    gdt_put(SEL_FREE, make_desc(0, 0xfff, 0x96, 4)); // expand-down: only above 0xfff
    assert_int_equal(seg_load(x, X86_SS, SEL_FREE), X_OK);
    assert_fault(x, seg_load_far_code(x, SEL_CODE0, 0x100, true, 4, 0x7007), X86_SS_FAULT, 0);
    x->s.gpr[X86_RSP] = 0x1008;
    assert_int_equal(seg_load_far_code(x, SEL_CODE0, 0x100, true, 4, 0x7007), X_OK);
    free(x);
}

#define TSS_B 0x5000u

static void make_tss_b(uint16_t link) {
    gdt_put(SEL_FREE, make_desc(TSS_B, 0x67, 0x89, 0));
    put16(TSS_B, link);
    put32(TSS_B + 0x20, 0x9000);
    put32(TSS_B + 0x24, 2);
    put32(TSS_B + 0x28 + 4 * X86_RSP, 0x18000);
    put32(TSS_B + 0x28, 0xabc);
    for (unsigned i = 0; i < 6; i++)
        put32(TSS_B + 0x48 + 4 * i, i == 1 ? SEL_CODE0 : SEL_DATA0);
}

static void test_task_switch_and_return(void **state) {
    struct xcpu *x = fake_cpu(false);

    make_tss_b(0);
    x->s.gpr[X86_RAX] = 0x77;
    assert_int_equal(seg_load_far_code(x, SEL_FREE, 0, true, 4, 0x7007), X_OK);
    assert_int_equal(x->s.seg[X86_TR].sel, SEL_FREE);
    assert_int_equal(x->s.rip, 0x9000);
    assert_int_equal(x->s.gpr[X86_RAX], 0xabc);
    assert_int_equal(x->s.gpr[X86_RSP], 0x18000);
    assert_true(x->s.rflags & RFLAGS_NT);
    assert_true(x->s.cr0 & CR0_TS);
    assert_int_equal(get16(TSS_B), SEL_TSS);
    assert_int_equal(mem[GDT + SEL_FREE + 5] & 15, DESC_TYPE_TSS32_BUSY);
    assert_int_equal(get32(TSS + 0x20), 0x7007);
    assert_int_equal(get32(TSS + 0x28), 0x77);

    assert_int_equal(sys_iret(x, 4), X_OK);
    assert_int_equal(x->s.seg[X86_TR].sel, SEL_TSS);
    assert_int_equal(x->s.rip, 0x7007);
    assert_int_equal(x->s.gpr[X86_RAX], 0x77);
    assert_int_equal(mem[GDT + SEL_FREE + 5] & 15, DESC_TYPE_TSS32);

    assert_fault(x, seg_load_far_code(x, SEL_TSS, 0, false, 4, 0), X86_GP, SEL_TSS); // busy
    free(x);
}

// The new task's own segments are bad: the fault belongs to it, not to the jump.
static void test_task_fault_in_new_task(void **state) {
    struct xcpu *x = fake_cpu(false);

    make_tss_b(0);
    put16(TSS_B + 0x54, 0x78); // DS: an empty descriptor
    put64(IDT + X86_TS * 8, 0xa000 | (uint64_t)SEL_CODE0 << 16 | 0x8eull << 40);
    assert_int_equal(seg_load_far_code(x, SEL_FREE, 0, false, 4, 0x7007), X_OK);
    assert_int_equal(x->s.rip, 0xa000);
    assert_int_equal(x->s.seg[X86_TR].sel, SEL_FREE);
    assert_int_equal(get32(x->s.gpr[X86_RSP]), 0x78);
    assert_int_equal(get32(x->s.gpr[X86_RSP] + 4), 0x9000);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_load_checks),
        cmocka_unit_test(test_null_ss_keeps_cpl),
        cmocka_unit_test(test_syscall_sysret),
        cmocka_unit_test(test_iret_checks),
        cmocka_unit_test(test_call_gate_with_parameters),
        cmocka_unit_test(test_call_gate_long),
        cmocka_unit_test(test_stack_limits),
        cmocka_unit_test(test_task_switch_and_return),
        cmocka_unit_test(test_task_fault_in_new_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
