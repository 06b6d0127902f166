// SPDX-License-Identifier: Apache-2.0
// Decimal adjustment (SDM vol. 2: AAA, AAD, AAM, AAS, DAA, DAS): not there in 64-bit mode, so in C. Undefined flags are
// those of a logical operation on the result, which is what processors since the P6 give for most of them.
#include "engine/xlate/emul_int.h"

static uint64_t szp(uint8_t v) {
    uint64_t f = v & RFLAGS_SF;

    if (!v)
        f |= RFLAGS_ZF;
    if (!(__builtin_popcount(v) & 1))
        f |= RFLAGS_PF;
    return f;
}

static void set_arith(struct xcpu *x, uint64_t f) {
    x->s.rflags = (x->s.rflags & ~RFLAGS_ARITH) | f;
}

static enum xres ascii_adjust(struct xcpu *x, int sign) {
    uint64_t ax = gpr_read(x, X86_RAX, 2), f = 0;

    if ((ax & 15) > 9 || (x->s.rflags & RFLAGS_AF)) {
        ax += (uint64_t)(sign * 0x106);
        f = RFLAGS_AF | RFLAGS_CF;
    }
    ax &= 0xff0f;
    gpr_write(x, X86_RAX, 2, ax);
    set_arith(x, f | szp((uint8_t)ax));
    return X_OK;
}

static enum xres emul_aaa(struct xcpu *x, struct insn *in) {
    return ascii_adjust(x, 1);
}
static enum xres emul_aas(struct xcpu *x, struct insn *in) {
    return ascii_adjust(x, -1);
}

static enum xres emul_aam(struct xcpu *x, struct insn *in) {
    uint8_t base = (uint8_t)in->op[0].imm.value.u, al = (uint8_t)x->s.gpr[X86_RAX];

    if (!base)
        return fault_raise(x, X86_DE);
    gpr_write(x, X86_RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    set_arith(x, szp((uint8_t)(al % base)));
    return X_OK;
}

static enum xres emul_aad(struct xcpu *x, struct insn *in) {
    uint64_t ax = gpr_read(x, X86_RAX, 2);
    uint8_t tens = (uint8_t)((ax >> 8) * (in->op[0].imm.value.u & 0xff)), old = (uint8_t)ax, al = (uint8_t)(old + tens);
    uint64_t f = szp(al);

    // CF, AF and OF are undefined by the manual; processors leave those of the addition.
    f |= al < old ? RFLAGS_CF : 0;
    f |= (al ^ old ^ tens) & RFLAGS_AF;
    f |= ((al ^ old) & (al ^ tens) & 0x80) ? RFLAGS_OF : 0;
    gpr_write(x, X86_RAX, 2, al);
    set_arith(x, f);
    return X_OK;
}

static enum xres decimal_adjust(struct xcpu *x, bool subtract) {
    uint8_t old = (uint8_t)x->s.gpr[X86_RAX], al = old;
    bool old_cf = x->s.rflags & RFLAGS_CF;
    uint64_t f = 0;

    if ((old & 15) > 9 || (x->s.rflags & RFLAGS_AF)) {
        al = (uint8_t)(subtract ? al - 6 : al + 6);
        f |= RFLAGS_AF;
        if (old_cf || (subtract ? old < 6 : old > 0xf9))
            f |= RFLAGS_CF;
    }
    if (old > 0x99 || old_cf) {
        al = (uint8_t)(subtract ? al - 0x60 : al + 0x60);
        f |= RFLAGS_CF;
    } else if (!subtract) {
        f &= ~RFLAGS_CF; // DAA clears it here, DAS keeps the borrow
    }
    gpr_write(x, X86_RAX, 1, al);
    set_arith(x, f | szp(al));
    return X_OK;
}

static enum xres emul_daa(struct xcpu *x, struct insn *in) {
    return decimal_adjust(x, false);
}
static enum xres emul_das(struct xcpu *x, struct insn *in) {
    return decimal_adjust(x, true);
}

EMUL_TABLE(emul_bcd_entries, E(AAA, emul_aaa), E(AAS, emul_aas), E(AAM, emul_aam), E(AAD, emul_aad), E(DAA, emul_daa),
           E(DAS, emul_das));
