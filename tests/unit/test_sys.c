// SPDX-License-Identifier: Apache-2.0
// Flags, control registers, MSRs and port permissions.
#include "fake_xlate.h"

static void test_popf_privilege(void **state) {
    struct xcpu *x = fake_cpu(true);
    uint64_t image = RFLAGS_IF | RFLAGS_IOPL | RFLAGS_TF | RFLAGS_VIF | RFLAGS_RF | RFLAGS_CF;

    user_mode(x);
    x->s.rflags = RFLAGS_FIXED1;
    x->s.gpr[X86_RSP] = STACK3 - 8;
    put64(STACK3 - 8, image);
    assert_int_equal(sys_popf(x, 8), X_OK);
    assert_int_equal(x->s.rflags, RFLAGS_FIXED1 | RFLAGS_TF | RFLAGS_CF); // IF and IOPL silently kept
    kernel_mode(x);
    put64(x->s.gpr[X86_RSP], image);
    assert_int_equal(sys_popf(x, 8), X_OK);
    assert_int_equal(x->s.rflags, RFLAGS_FIXED1 | RFLAGS_TF | RFLAGS_CF | RFLAGS_IF | RFLAGS_IOPL);
    free(x);
}

static void test_sti_window(void **state) {
    struct xcpu *x = fake_cpu(true);

    x->s.rflags &= ~RFLAGS_IF;
    assert_int_equal(sys_sti(x), X_OK);
    assert_int_equal(x->s.intr_shadow, 1);
    assert_false(exit_requested(x));
    x->s.intr_shadow = 0;
    assert_int_equal(sys_sti(x), X_OK); // IF was 1: no shadow
    assert_int_equal(x->s.intr_shadow, 0);
    x->s.rflags &= ~RFLAGS_IF;
    irq_vector = 0x30;
    assert_int_equal(sys_sti(x), X_OK);
    assert_true(exit_requested(x));
    user_mode(x);
    assert_fault(x, sys_sti(x), X86_GP, 0);
    x->s.cr4 |= CR4_PVI;
    assert_int_equal(sys_sti(x), X_OK);
    assert_true(x->s.rflags & RFLAGS_VIF);
    free(x);
}

static void test_long_mode_entry(void **state) {
    struct xcpu *x = fake_cpu(false);

    assert_int_equal(msr_write(x, 0xc0000080, EFER_LME | EFER_SCE), X_OK);
    assert_fault(x, sys_mov_to_cr(x, 0, x->s.cr0 | CR0_PG), X86_GP, 0); // no PAE
    assert_int_equal(sys_mov_to_cr(x, 4, CR4_PAE), X_OK);
    assert_int_equal(sys_mov_to_cr(x, 0, x->s.cr0 | CR0_PG), X_OK);
    assert_true(x->s.efer & EFER_LMA);
    assert_int_equal(x->code_bits, 32); // compatibility mode until CS.L
    assert_fault(x, sys_mov_to_cr(x, 4, 0), X86_GP, 0);
    assert_fault(x, msr_write(x, 0xc0000080, EFER_SCE), X86_GP, 0); // LME with paging on
    assert_fault(x, sys_mov_to_cr(x, 3, 1ull << 40), X86_GP, 0);
    assert_fault(x, sys_mov_to_cr(x, 4, CR4_PAE | CR4_PCIDE), X86_GP, 0); // not offered
    policy.has_pcid = true;
    x->s.cr3 = 0x5001;
    assert_fault(x, sys_mov_to_cr(x, 4, CR4_PAE | CR4_PCIDE), X86_GP, 0); // PCID not 0
    x->s.cr3 = 0x5000;
    assert_int_equal(sys_mov_to_cr(x, 4, CR4_PAE | CR4_PCIDE), X_OK);
    assert_int_equal(sys_mov_to_cr(x, 3, 1ull << 63 | 0x6001), X_OK);
    assert_fault(x, sys_mov_to_cr(x, 0, x->s.cr0 & ~CR0_PG), X86_GP, 0); // PCIDE still set
    assert_int_equal(sys_mov_to_cr(x, 4, CR4_PAE), X_OK);
    assert_int_equal(sys_mov_to_cr(x, 0, x->s.cr0 & ~CR0_PG), X_OK);
    assert_false(x->s.efer & EFER_LMA);
    assert_fault(x, sys_mov_to_cr(x, 0, CR0_PG), X86_GP, 0);
    assert_fault(x, sys_mov_to_cr(x, 0, CR0_PE | CR0_NW), X86_GP, 0);
    free(x);
}

static void test_msr_rules(void **state) {
    struct xcpu *x = fake_cpu(true);
    uint64_t v;

    assert_fault(x, msr_write(x, 0xc0000080, x->s.efer | 2), X86_GP, 0);
    assert_int_equal(msr_write(x, 0xc0000080, EFER_LME | EFER_NXE), X_OK); // LMA cannot be cleared
    assert_int_equal(x->s.efer, EFER_LME | EFER_NXE | EFER_LMA);
    assert_fault(x, msr_write(x, 0xc0000100, 0x0000800000000000), X86_GP, 0);
    assert_int_equal(msr_write(x, 0xc0000101, 0xffff888000000000), X_OK);
    assert_int_equal(x->s.seg[X86_GS].base, 0xffff888000000000);
    assert_fault(x, msr_write(x, 0x277, 0x0007040600070402), X86_GP, 0); // type 2
    assert_int_equal(msr_write(x, 0x277, 0x0007010600070106), X_OK);
    assert_fault(x, msr_write(x, 0x2ff, 0xc02), X86_GP, 0);
    assert_int_equal(msr_write(x, 0x2ff, 0xc06), X_OK);
    assert_fault(x, msr_write(x, 0x201, 1ull << 40), X86_GP, 0);
    assert_int_equal(msr_write(x, 0x20f, 0xff80000800), X_OK);
    assert_int_equal(x->s.mtrr_mask[7], 0xff80000800);
    assert_int_equal(msr_read(x, 0xfe, &v), X_OK);
    assert_int_equal(v & 0xff, X86_MTRR_VAR);
    assert_fault(x, msr_write(x, 0xfe, 0), X86_GP, 0);
    assert_fault(x, msr_read(x, 0x12345, &v), X86_GP, 0);
    assert_fault(x, msr_read(x, 0x48, &v), X86_GP, 0); // not offered by this policy
    assert_fault(x, msr_read(x, 0x10a, &v), X86_GP, 0);
    assert_int_equal(msr_read(x, 0x1b, &v), X_OK);
    assert_int_equal(v, 0xfee00900);
    assert_fault(x, msr_read(x, 0x802, &v), X86_GP, 0);
    user_mode(x);
    assert_fault(x, sys_rdmsr(x), X86_GP, 0);
    free(x);
}

static void test_tsc_and_adjust_move_together(void **state) {
    struct xcpu *x = fake_cpu(true);

    fake_tsc = 5000;
    assert_int_equal(msr_write(x, 0x10, 1000), X_OK);
    assert_int_equal(host_tsc(x), 1000);
    assert_int_equal((int64_t)x->s.tsc_adjust, -4000);
    assert_int_equal(msr_write(x, 0x3b, 0), X_OK);
    assert_int_equal(host_tsc(x), 5000);
    x->s.cr4 |= CR4_TSD;
    assert_int_equal(sys_rdtsc(x, false), X_OK);
    user_mode(x);
    assert_fault(x, sys_rdtsc(x, false), X86_GP, 0);
    free(x);
}

static void test_io_permission(void **state) {
    struct xcpu *x = fake_cpu(false);

    user_mode(x);
    assert_fault(x, io_check(x, 0x80, 1), X86_GP, 0);
    x->s.rflags |= RFLAGS_IOPL;
    assert_int_equal(io_check(x, 0x80, 1), X_OK);
    x->s.rflags &= ~RFLAGS_IOPL;
    x->s.seg[X86_TR].limit = 0x68 + 0x20;
    mem[TSS + 0x68 + 0x10] = 0x08; // port 0x83 refused
    assert_int_equal(io_check(x, 0x80, 2), X_OK);
    assert_fault(x, io_check(x, 0x80, 4), X86_GP, 0);
    assert_fault(x, io_check(x, 0x83, 1), X86_GP, 0);
    assert_int_equal(io_check(x, 0x84, 4), X_OK);
    assert_fault(x, io_check(x, 0x100, 1), X86_GP, 0); // two bytes are read: the last byte is beyond the limit
    free(x);
}

static void test_smap_flags(void **state) {
    struct xcpu *x = fake_cpu(true);
    struct insn in = {0};

    mode_updates = 0;
    assert_int_equal(insn_stac(x, &in), X_OK);
    assert_true(x->s.rflags & RFLAGS_AC);
    assert_int_equal(mode_updates, 1);
    user_mode(x);
    assert_int_equal(insn_clac(x, &in), X_FAULT);
    assert_int_equal(x->fault.vector, X86_UD);
    assert_int_equal(sys_swapgs(x), X_FAULT);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_popf_privilege),
        cmocka_unit_test(test_sti_window),
        cmocka_unit_test(test_long_mode_entry),
        cmocka_unit_test(test_msr_rules),
        cmocka_unit_test(test_tsc_and_adjust_move_together),
        cmocka_unit_test(test_io_permission),
        cmocka_unit_test(test_smap_flags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
