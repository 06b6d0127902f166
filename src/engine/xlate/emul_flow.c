// SPDX-License-Identifier: Apache-2.0
// Near control transfers (SDM vol. 2: JMP, CALL, RET, Jcc, JCXZ, LOOP, BOUND). Far forms go to the system half.
#include "engine/xlate/emul_int.h"

// Conditions in pairs: the odd one is the negation.
bool flags_test(uint64_t f, unsigned cc) {
    bool sf_of = !(f & RFLAGS_SF) != !(f & RFLAGS_OF), r = false;

    switch (cc >> 1 & 7) {
    case 0: r = f & RFLAGS_OF; break;
    case 1: r = f & RFLAGS_CF; break;
    case 2: r = f & RFLAGS_ZF; break;
    case 3: r = f & (RFLAGS_CF | RFLAGS_ZF); break;
    case 4: r = f & RFLAGS_SF; break;
    case 5: r = f & RFLAGS_PF; break;
    case 6: r = sf_of; break;
    case 7: r = sf_of || (f & RFLAGS_ZF); break;
    }
    return r != (cc & 1);
}

// Truncates a target to the operand size; #GP(0) if execution cannot go on there.
static enum xres check_target(struct xcpu *x, struct insn *in, uint64_t *target) {
    *target &= addr_mask(in->z.operand_width);
    if (cpu_64bit(x) ? !is_canonical(*target) : *target > x->s.seg[X86_CS].limit)
        return gp0(x);
    return X_OK;
}

static enum xres jump(struct xcpu *x, struct insn *in, uint64_t target) {
    TRY(check_target(x, in, &target));
    x->s.rip = target;
    return X_OK;
}

static enum xres read_target(struct xcpu *x, struct insn *in, uint64_t *target) {
    TRY(op_read(x, in, 0, target));
    if (in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        *target += in->next_rip;
    return X_OK;
}

static enum xres emul_jmp(struct xcpu *x, struct insn *in) {
    uint64_t target;

    if (in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return sys_insn_far_branch(x, in);
    TRY(read_target(x, in, &target));
    return jump(x, in, target);
}

static enum xres emul_call(struct xcpu *x, struct insn *in) {
    uint64_t target;

    if (in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return sys_insn_far_branch(x, in);
    TRY(read_target(x, in, &target));
    TRY(check_target(x, in, &target));
    TRY(stack_push(x, in->next_rip, in->z.operand_width / 8u));
    x->s.rip = target;
    return X_OK;
}

static enum xres emul_ret(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint64_t target, drop = 0, sp = x->s.gpr[X86_RSP];

    if (in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return sys_insn_far_branch(x, in);
    if (in->z.operand_count_visible)
        drop = in->op[0].imm.value.u & 0xffff;
    TRY(stack_get(x, sp, &target, size));
    TRY(jump(x, in, target));
    stack_set(x, sp + size + drop);
    return X_OK;
}

static enum xres branch_if(struct xcpu *x, struct insn *in, bool taken) {
    return taken ? jump(x, in, in->next_rip + in->op[0].imm.value.u) : X_OK;
}

static enum xres emul_jcc(struct xcpu *x, struct insn *in) {
    return branch_if(x, in, flags_test(x->s.rflags, in->z.opcode & 15));
}

static enum xres emul_jcxz(struct xcpu *x, struct insn *in) {
    return branch_if(x, in, !(x->s.gpr[X86_RCX] & addr_mask(in->z.address_width)));
}

static enum xres emul_loop(struct xcpu *x, struct insn *in) {
    unsigned bytes = in->z.address_width / 8u;
    uint64_t count = gpr_read(x, X86_RCX, bytes) - 1;
    bool zf = x->s.rflags & RFLAGS_ZF, taken = count & mask_bytes(bytes);

    if (in->z.mnemonic == ZYDIS_MNEMONIC_LOOPE)
        taken = taken && zf;
    else if (in->z.mnemonic == ZYDIS_MNEMONIC_LOOPNE)
        taken = taken && !zf;
    TRY(branch_if(x, in, taken));
    gpr_write(x, X86_RCX, bytes, count);
    return X_OK;
}

static enum xres emul_bound(struct xcpu *x, struct insn *in) {
    unsigned size = op_bytes(in, 0);
    enum x86_seg seg = insn_seg(&in->op[1]);
    uint64_t ea = insn_ea(x, in, &in->op[1]), idx, lo = 0, hi = 0;

    TRY(op_read(x, in, 0, &idx));
    TRY(seg_read(x, seg, ea, &lo, size, MMU_READ));
    TRY(seg_read(x, seg, (ea + size) & addr_mask(in->z.address_width), &hi, size, MMU_READ));
    int64_t i = (int64_t)sign_extend(idx, size);
    if (i < (int64_t)sign_extend(lo, size) || i > (int64_t)sign_extend(hi, size))
        return fault_raise(x, X86_BR);
    return X_OK;
}

EMUL_TABLE(emul_flow_entries, E(JMP, emul_jmp), E(CALL, emul_call), E(RET, emul_ret), E(JO, emul_jcc), E(JNO, emul_jcc),
           E(JB, emul_jcc), E(JNB, emul_jcc), E(JZ, emul_jcc), E(JNZ, emul_jcc), E(JBE, emul_jcc), E(JNBE, emul_jcc),
           E(JS, emul_jcc), E(JNS, emul_jcc), E(JP, emul_jcc), E(JNP, emul_jcc), E(JL, emul_jcc), E(JNL, emul_jcc),
           E(JLE, emul_jcc), E(JNLE, emul_jcc), E(JCXZ, emul_jcxz), E(JECXZ, emul_jcxz), E(JRCXZ, emul_jcxz),
           E(LOOP, emul_loop), E(LOOPE, emul_loop), E(LOOPNE, emul_loop), E(BOUND, emul_bound));
