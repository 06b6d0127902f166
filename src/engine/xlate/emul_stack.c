// SPDX-License-Identifier: Apache-2.0
// Stack instructions (SDM vol. 2: PUSH, POP, PUSHA, POPA, ENTER, LEAVE). RSP moves last.
#include "engine/xlate/emul_int.h"

static bool op_is_sreg(const struct insn *in) {
    return in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(in->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static enum xres emul_push(struct xcpu *x, struct insn *in) {
    uint64_t val;

    if (op_is_sreg(in))
        return sys_insn_push_seg(x, in);
    TRY(op_read(x, in, 0, &val));
    return stack_push(x, val, in->z.operand_width / 8u);
}

// A memory operand is addressed with the RSP after the pop (SDM vol. 2B POP).
static enum xres emul_pop(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint64_t val, sp = x->s.gpr[X86_RSP];
    enum xres r;

    if (op_is_sreg(in))
        return sys_insn_pop_seg(x, in);
    TRY(stack_get(x, sp, &val, size));
    stack_set(x, sp + size);
    r = op_write(x, in, 0, val);
    if (r != X_OK)
        x->s.gpr[X86_RSP] = sp;
    return r;
}

static enum xres emul_pusha(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint64_t sp = x->s.gpr[X86_RSP];

    for (unsigned i = 0; i < 8; i++)
        TRY(stack_put(x, sp - (i + 1) * size, x->s.gpr[i], size));
    stack_set(x, sp - 8 * size);
    return X_OK;
}

static enum xres emul_popa(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint64_t sp = x->s.gpr[X86_RSP], val[8];

    for (unsigned i = 0; i < 8; i++)
        TRY(stack_get(x, sp + i * size, &val[7 - i], size));
    for (unsigned i = 0; i < 8; i++)
        if (i != X86_RSP)
            gpr_write(x, i, size, val[i]);
    stack_set(x, sp + 8 * size);
    return X_OK;
}

// Copies the frame pointers of the enclosing levels (SDM vol. 2A ENTER).
static enum xres enter_levels(struct xcpu *x, unsigned level, unsigned size, uint64_t frame, uint64_t *sp) {
    uint64_t bp = x->s.gpr[X86_RBP], val;

    for (unsigned i = 1; i < level; i++) {
        bp -= size;
        TRY(stack_get(x, bp, &val, size));
        *sp -= size;
        TRY(stack_put(x, *sp, val, size));
    }
    if (level) {
        *sp -= size;
        TRY(stack_put(x, *sp, frame, size));
    }
    return X_OK;
}

static enum xres emul_enter(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u, level = in->op[1].imm.value.u & 31;
    uint64_t alloc = in->op[0].imm.value.u & 0xffff, sp = x->s.gpr[X86_RSP] - size, frame = sp, lin;

    TRY(stack_put(x, sp, x->s.gpr[X86_RBP], size));
    TRY(enter_levels(x, level, size, frame, &sp));
    sp -= alloc;
    // The new top of the stack must be writable.
    TRY(seg_linear(x, X86_SS, sp & stack_mask(x), size, MMU_WRITE, &lin));
    TRY(mmu_probe(x, lin, size, MMU_WRITE));
    gpr_write(x, X86_RBP, size, frame);
    stack_set(x, sp);
    return X_OK;
}

static enum xres emul_leave(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint64_t sp = x->s.gpr[X86_RBP], val;

    TRY(stack_get(x, sp, &val, size));
    stack_set(x, sp + size);
    gpr_write(x, X86_RBP, size, val);
    return X_OK;
}

EMUL_TABLE(emul_stack_entries, E(PUSH, emul_push), E(POP, emul_pop), E(PUSHA, emul_pusha), E(PUSHAD, emul_pusha),
           E(POPA, emul_popa), E(POPAD, emul_popa), E(ENTER, emul_enter), E(LEAVE, emul_leave));
