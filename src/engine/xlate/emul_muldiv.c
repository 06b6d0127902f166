// SPDX-License-Identifier: Apache-2.0
// Multiplication and division (SDM vol. 2: MUL, IMUL, DIV, IDIV). A division is executed on the host only after C has
// made sure that it cannot fault there.
#include "engine/xlate/emul_int.h"

// RAX and RDX are operands, so the flags take the stack; the red zone is stepped over.
#define WIDE_OP(text)                                                                                                  \
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\tpushq %[f]\n\tpopfq\n\t" text                                         \
                     "\n\tpushfq\n\tpopq %[f]\n\tleaq 128(%%rsp), %%rsp"                                               \
                     : "+a"(*lo), "+d"(*hi), [f] "+r"(f)                                                               \
                     : [s] "r"(src)                                                                                    \
                     : "cc", "memory")
#define WIDE_FN(name, op)                                                                                              \
    static void name(uint64_t *lo, uint64_t *hi, uint64_t src, unsigned size, uint64_t *rflags) {                      \
        uint64_t f = (*rflags & RFLAGS_ARITH) | RFLAGS_FIXED1;                                                         \
        switch (size) {                                                                                                \
        case 1: WIDE_OP(op "b %b[s]"); break;                                                                          \
        case 2: WIDE_OP(op "w %w[s]"); break;                                                                          \
        case 4: WIDE_OP(op "l %k[s]"); break;                                                                          \
        case 8: WIDE_OP(op "q %q[s]"); break;                                                                          \
        }                                                                                                              \
        *rflags = (*rflags & ~RFLAGS_ARITH) | (f & RFLAGS_ARITH);                                                      \
    }
WIDE_FN(wide_mul, "mul")
WIDE_FN(wide_imul, "imul")
WIDE_FN(wide_div, "div")
WIDE_FN(wide_idiv, "idiv")

typedef void (*wide_fn)(uint64_t *lo, uint64_t *hi, uint64_t src, unsigned size, uint64_t *rflags);

// AX for bytes, else xDX:xAX.
static void wide_store(struct xcpu *x, unsigned size, uint64_t lo, uint64_t hi) {
    if (size == 1) {
        gpr_write(x, X86_RAX, 2, lo);
        return;
    }
    gpr_write(x, X86_RAX, size, lo);
    gpr_write(x, X86_RDX, size, hi);
}

static enum xres wide_multiply(struct xcpu *x, struct insn *in, wide_fn f) {
    uint64_t src, lo = x->s.gpr[X86_RAX], hi = x->s.gpr[X86_RDX];
    unsigned size = op_bytes(in, 0);

    TRY(op_read(x, in, 0, &src));
    f(&lo, &hi, src, size, &x->s.rflags);
    wide_store(x, size, lo, hi);
    return X_OK;
}

static enum xres emul_mul(struct xcpu *x, struct insn *in) {
    return wide_multiply(x, in, wide_mul);
}

#define IMUL_CASE(n, text)                                                                                             \
    case n: __asm__ volatile(FLAGS_IN text FLAGS_OUT : [d] "+r"(dst), "+a"(ax) : [s] "r"(src) : "cc"); break
static uint64_t imul_trunc(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {
    unsigned ax = flags_pack(*rflags);

    switch (size) {
        IMUL_CASE(2, "imulw %w[s], %w[d]");
        IMUL_CASE(4, "imull %k[s], %k[d]");
        IMUL_CASE(8, "imulq %q[s], %q[d]");
    }
    *rflags = flags_unpack(*rflags, ax);
    return dst;
}

static enum xres emul_imul(struct xcpu *x, struct insn *in) {
    unsigned visible = in->z.operand_count_visible;
    uint64_t a, b;

    if (visible == 1)
        return wide_multiply(x, in, wide_imul);
    TRY(op_read(x, in, visible == 3 ? 1 : 0, &a));
    TRY(op_read(x, in, visible == 3 ? 2 : 1, &b));
    a = imul_trunc(a, b, op_bytes(in, 0), &x->s.rflags);
    return op_write(x, in, 0, a);
}

// Dividend of 2 * size bytes as the instruction sees it.
static unsigned __int128 dividend(const struct xcpu *x, unsigned size) {
    if (size == 1)
        return gpr_read(x, X86_RAX, 2);
    return (unsigned __int128)gpr_read(x, X86_RDX, size) << (8 * size) | gpr_read(x, X86_RAX, size);
}

// Whether |a| / |b| of the signed values does not fit; b != 0.
static bool idiv_overflows(unsigned __int128 a, uint64_t b, unsigned size) {
    unsigned shift = 128 - 16 * size;
    __int128 sa = (__int128)(a << shift) >> shift;
    int64_t sb = (int64_t)sign_extend(b, size);
    unsigned __int128 ua = sa < 0 ? -(unsigned __int128)sa : (unsigned __int128)sa;
    uint64_t ub = sb < 0 ? -(uint64_t)sb : (uint64_t)sb;
    // The quotient's magnitude may be 2^(bits-1) if it is negative, one less if not: q > max <=> ua >= (max+1) * ub.
    uint64_t max = (1ull << (8 * size - 1)) - ((sa < 0) == (sb < 0) ? 1 : 0);

    return ua >= ((unsigned __int128)max + 1) * ub;
}

static enum xres divide(struct xcpu *x, struct insn *in, bool is_signed) {
    unsigned size = op_bytes(in, 0);
    uint64_t src, lo = x->s.gpr[X86_RAX], hi = x->s.gpr[X86_RDX];
    unsigned __int128 a = dividend(x, size);

    TRY(op_read(x, in, 0, &src));
    if (!src || (is_signed ? idiv_overflows(a, src, size) : (a >> (8 * size)) >= src))
        return fault_raise(x, X86_DE);
    if (is_signed)
        wide_idiv(&lo, &hi, src, size, &x->s.rflags);
    else
        wide_div(&lo, &hi, src, size, &x->s.rflags);
    wide_store(x, size, lo, hi);
    return X_OK;
}

static enum xres emul_div(struct xcpu *x, struct insn *in) {
    return divide(x, in, false);
}
static enum xres emul_idiv(struct xcpu *x, struct insn *in) {
    return divide(x, in, true);
}

EMUL_TABLE(emul_muldiv_entries, E(MUL, emul_mul), E(IMUL, emul_imul), E(DIV, emul_div), E(IDIV, emul_idiv));
