// SPDX-License-Identifier: Apache-2.0
// Shifts and rotates (SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD). The host masks the count and leaves
// the flags alone for a count of 0, as the guest's processor would.
#include "engine/xlate/emul_int.h"

ALU_COUNT_CL(shift_shl, "shl")
ALU_COUNT_CL(shift_shr, "shr")
ALU_COUNT_CL(shift_sar, "sar")
ALU_COUNT_CL(shift_rol, "rol")
ALU_COUNT_CL(shift_ror, "ror")
ALU_COUNT_CL(shift_rcl, "rcl")
ALU_COUNT_CL(shift_rcr, "rcr")

// ROL and ROR of a register by an immediate: some processors leave OF alone unless the count is 1, though they compute
// it for a count in CL. The host is asked once; bit 0 of the answer: known, bit 1: left alone.
static bool rotate_keeps_of(void) {
    static uint8_t answer;

    if (!answer) {
        unsigned ax = flags_pack(RFLAGS_OF);
        uint64_t val = 0;

        __asm__ volatile(FLAGS_IN "rolq $2, %[v]" FLAGS_OUT : [v] "+r"(val), "+a"(ax)::"cc");
        answer = ax & 1 ? 3 : 1;
    }
    return answer & 2;
}

static uint64_t shift_rol_imm(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {
    uint64_t of = *rflags & RFLAGS_OF;

    dst = shift_rol(dst, src, size, rflags);
    *rflags = (*rflags & ~RFLAGS_OF) | of;
    return dst;
}
static uint64_t shift_ror_imm(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {
    uint64_t of = *rflags & RFLAGS_OF;

    dst = shift_ror(dst, src, size, rflags);
    *rflags = (*rflags & ~RFLAGS_OF) | of;
    return dst;
}

static enum xres shift(struct xcpu *x, struct insn *in, alu_fn f) {
    bool immediate = in->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !op_is_mem(in, 0);
    uint64_t count;

    TRY(op_read(x, in, 1, &count));
    if (immediate && (count & (op_bytes(in, 0) == 8 ? 63 : 31)) != 1 && rotate_keeps_of()) {
        if (f == shift_rol)
            f = shift_rol_imm;
        else if (f == shift_ror)
            f = shift_ror_imm;
    }
    return op_modify(x, in, 0, f, count & 0xff, NULL);
}

#define SHIFT(name)                                                                                                    \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return shift(x, in, shift_##name);                                                                             \
    }
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)
SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)

struct double_src {
    uint64_t val, count;
};
#define DOUBLE_CASE(n, text)                                                                                           \
    case n:                                                                                                            \
        __asm__ volatile(FLAGS_IN text FLAGS_OUT : [d] "+r"(dst), "+a"(ax) : [s] "r"(p->val), "c"(p->count) : "cc");   \
        break
// src: address of a struct double_src.
#define DOUBLE_FN(name, op)                                                                                            \
    static uint64_t name(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {                                \
        const struct double_src *p = (const void *)src;                                                                \
        unsigned ax = flags_pack(*rflags);                                                                             \
        switch (size) {                                                                                                \
            DOUBLE_CASE(2, op "w %%cl, %w[s], %w[d]");                                                                 \
            DOUBLE_CASE(4, op "l %%cl, %k[s], %k[d]");                                                                 \
            DOUBLE_CASE(8, op "q %%cl, %q[s], %q[d]");                                                                 \
        }                                                                                                              \
        *rflags = flags_unpack(*rflags, ax);                                                                           \
        return dst;                                                                                                    \
    }
DOUBLE_FN(shift_shld, "shld")
DOUBLE_FN(shift_shrd, "shrd")

static enum xres double_shift(struct xcpu *x, struct insn *in, alu_fn f) {
    struct double_src src;

    TRY(op_read(x, in, 1, &src.val));
    TRY(op_read(x, in, 2, &src.count));
    src.count &= 0xff;
    return op_modify(x, in, 0, f, (uint64_t)&src, NULL);
}

static enum xres emul_shld(struct xcpu *x, struct insn *in) {
    return double_shift(x, in, shift_shld);
}
static enum xres emul_shrd(struct xcpu *x, struct insn *in) {
    return double_shift(x, in, shift_shrd);
}

EMUL_TABLE(emul_shift_entries, E(SHL, emul_shl), E(SHR, emul_shr), E(SAR, emul_sar), E(ROL, emul_rol), E(ROR, emul_ror),
           E(RCL, emul_rcl), E(RCR, emul_rcr), E(SHLD, emul_shld), E(SHRD, emul_shrd));
