// SPDX-License-Identifier: Apache-2.0
// Data movement between registers and memory (SDM vol. 2: MOV, MOVZX, MOVSX, MOVBE, LEA, XLAT, CMOVcc, SETcc, BSWAP).
#include "engine/xlate/emul_int.h"

static enum xres emul_mov(struct xcpu *x, struct insn *in) {
    uint64_t val;

    for (unsigned i = 0; i < 2; i++) {
        if (in->op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(in->op[i].reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT: return sys_insn_mov_seg(x, in);
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG: return sys_insn_mov_crdr(x, in);
        case ZYDIS_REGCLASS_TEST: return ud(x);
        default: break;
        }
    }
    TRY(op_read(x, in, 1, &val));
    return op_write(x, in, 0, val);
}

// Zero extension, and moves between equal sizes.
static enum xres emul_movzx(struct xcpu *x, struct insn *in) {
    uint64_t val;

    TRY(op_read(x, in, 1, &val));
    return op_write(x, in, 0, val);
}

static enum xres emul_movsx(struct xcpu *x, struct insn *in) {
    uint64_t val;

    TRY(op_read(x, in, 1, &val));
    return op_write(x, in, 0, sign_extend(val, op_bytes(in, 1)));
}

static enum xres emul_movbe(struct xcpu *x, struct insn *in) {
    uint64_t val;

    TRY(op_read(x, in, 1, &val));
    return op_write(x, in, 0, __builtin_bswap64(val) >> (64 - in->op[0].size));
}

// BSWAP of 16 bits is undefined; processors clear the register's low word, and so does the host.
static enum xres emul_bswap(struct xcpu *x, struct insn *in) {
    unsigned reg = gpr_index(in->op[0].reg.value);
    uint64_t val = x->s.gpr[reg];

    switch (op_bytes(in, 0)) {
    case 2: __asm__(".byte 0x66\n\tbswapl %k0" : "+a"(val)); break;
    case 4: __asm__("bswapl %k0" : "+r"(val)); break;
    case 8: __asm__("bswapq %q0" : "+r"(val)); break;
    }
    x->s.gpr[reg] = val;
    return X_OK;
}

static enum xres emul_lea(struct xcpu *x, struct insn *in) {
    return op_write(x, in, 0, insn_ea(x, in, &in->op[1]));
}

static enum xres emul_xlat(struct xcpu *x, struct insn *in) {
    enum x86_seg seg = X86_DS;
    uint64_t ea = x->s.gpr[X86_RBX] + (x->s.gpr[X86_RAX] & 0xff);
    uint8_t val;

    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (op_is_mem(in, i))
            seg = insn_seg(&in->op[i]);
    TRY(seg_read(x, seg, ea & addr_mask(in->z.address_width), &val, 1, MMU_READ));
    gpr_write(x, X86_RAX, 1, val);
    return X_OK;
}

// The source is read, and a 32-bit destination zero-extended, whatever the condition.
static enum xres emul_cmov(struct xcpu *x, struct insn *in) {
    uint64_t src, dst;

    TRY(op_read(x, in, 1, &src));
    TRY(op_read(x, in, 0, &dst));
    return op_write(x, in, 0, flags_test(x->s.rflags, in->z.opcode & 15) ? src : dst);
}

static enum xres emul_set(struct xcpu *x, struct insn *in) {
    return op_write(x, in, 0, flags_test(x->s.rflags, in->z.opcode & 15));
}

EMUL_TABLE(emul_move_entries, E(MOV, emul_mov), E(MOVNTI, emul_movzx), E(MOVZX, emul_movzx), E(MOVSX, emul_movsx),
           E(MOVSXD, emul_movsx), E(MOVBE, emul_movbe), E(BSWAP, emul_bswap), E(LEA, emul_lea), E(XLAT, emul_xlat),
           E(CMOVO, emul_cmov), E(CMOVNO, emul_cmov), E(CMOVB, emul_cmov), E(CMOVNB, emul_cmov), E(CMOVZ, emul_cmov),
           E(CMOVNZ, emul_cmov), E(CMOVBE, emul_cmov), E(CMOVNBE, emul_cmov), E(CMOVS, emul_cmov), E(CMOVNS, emul_cmov),
           E(CMOVP, emul_cmov), E(CMOVNP, emul_cmov), E(CMOVL, emul_cmov), E(CMOVNL, emul_cmov), E(CMOVLE, emul_cmov),
           E(CMOVNLE, emul_cmov), E(SETO, emul_set), E(SETNO, emul_set), E(SETB, emul_set), E(SETNB, emul_set),
           E(SETZ, emul_set), E(SETNZ, emul_set), E(SETBE, emul_set), E(SETNBE, emul_set), E(SETS, emul_set),
           E(SETNS, emul_set), E(SETP, emul_set), E(SETNP, emul_set), E(SETL, emul_set), E(SETNL, emul_set),
           E(SETLE, emul_set), E(SETNLE, emul_set));
