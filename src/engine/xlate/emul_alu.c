// SPDX-License-Identifier: Apache-2.0
// Two-operand and one-operand integer arithmetic (SDM vol. 2: ADD ... XOR, INC, DEC, NEG, NOT, CMP, TEST).
#include "engine/xlate/emul_int.h"

ALU_BINARY(alu_add, "add")
ALU_BINARY(alu_or, "or")
ALU_BINARY(alu_adc, "adc")
ALU_BINARY(alu_sbb, "sbb")
ALU_BINARY(alu_and, "and")
ALU_BINARY(alu_sub, "sub")
ALU_BINARY(alu_xor, "xor")
ALU_BINARY(alu_cmp, "cmp")
ALU_BINARY(alu_test, "test")
ALU_UNARY(alu_inc, "inc")
ALU_UNARY(alu_dec, "dec")
ALU_UNARY(alu_neg, "neg")
ALU_UNARY(alu_not, "not")

static enum xres binary(struct xcpu *x, struct insn *in, alu_fn f) {
    uint64_t src;

    TRY(op_read(x, in, 1, &src));
    return op_modify(x, in, 0, f, src, NULL);
}

static enum xres compare(struct xcpu *x, struct insn *in, alu_fn f) {
    uint64_t a, b;

    TRY(op_read(x, in, 0, &a));
    TRY(op_read(x, in, 1, &b));
    f(a, b, op_bytes(in, 0), &x->s.rflags);
    return X_OK;
}

#define BINARY(name)                                                                                                   \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return binary(x, in, alu_##name);                                                                              \
    }
#define UNARY(name)                                                                                                    \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return op_modify(x, in, 0, alu_##name, 0, NULL);                                                               \
    }
#define COMPARE(name)                                                                                                  \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return compare(x, in, alu_##name);                                                                             \
    }

BINARY(add)
BINARY(or)
BINARY(adc)
BINARY(sbb)
BINARY(and)
BINARY(sub)
BINARY(xor)
UNARY(inc)
UNARY(dec)
UNARY(neg)
UNARY(not )
COMPARE(cmp)
COMPARE(test)

EMUL_TABLE(emul_alu_entries, E(ADD, emul_add), E(OR, emul_or), E(ADC, emul_adc), E(SBB, emul_sbb), E(AND, emul_and),
           E(SUB, emul_sub), E(XOR, emul_xor), E(INC, emul_inc), E(DEC, emul_dec), E(NEG, emul_neg), E(NOT, emul_not),
           E(CMP, emul_cmp), E(TEST, emul_test));
