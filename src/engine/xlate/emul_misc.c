// SPDX-License-Identifier: Apache-2.0
// Flag operations, sign conversions, fences, hints (SDM vol. 2: CBW ... CQO, LAHF, SAHF, CLC ... STD, NOP, xFENCE).
#include "engine/xlate/emul_int.h"

static enum xres emul_nop(struct xcpu *x, struct insn *in) {
    return X_OK;
}

// The host orders the emulated accesses; the strongest fence serves all three.
static enum xres emul_fence(struct xcpu *x, struct insn *in) {
    __asm__ volatile("mfence\n\tlfence" ::: "memory");
    return X_OK;
}

// CBW, CWDE, CDQE: AL -> AX, AX -> EAX, EAX -> RAX.
static enum xres emul_cbw(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;

    gpr_write(x, X86_RAX, size, sign_extend(x->s.gpr[X86_RAX], size / 2));
    return X_OK;
}

// CWD, CDQ, CQO: the sign of xAX into xDX.
static enum xres emul_cwd(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;

    gpr_write(x, X86_RDX, size, x->s.gpr[X86_RAX] >> (8 * size - 1) & 1 ? ~0ull : 0);
    return X_OK;
}

#define LAHF_FLAGS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF)
static enum xres emul_lahf(struct xcpu *x, struct insn *in) {
    reg_write(x, ZYDIS_REGISTER_AH, (x->s.rflags & LAHF_FLAGS) | RFLAGS_FIXED1);
    return X_OK;
}

static enum xres emul_sahf(struct xcpu *x, struct insn *in) {
    x->s.rflags = (x->s.rflags & ~LAHF_FLAGS) | (reg_read(x, ZYDIS_REGISTER_AH) & LAHF_FLAGS);
    return X_OK;
}

static enum xres emul_flag(struct xcpu *x, struct insn *in) {
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLC: x->s.rflags &= ~RFLAGS_CF; break;
    case ZYDIS_MNEMONIC_STC: x->s.rflags |= RFLAGS_CF; break;
    case ZYDIS_MNEMONIC_CMC: x->s.rflags ^= RFLAGS_CF; break;
    case ZYDIS_MNEMONIC_CLD: x->s.rflags &= ~RFLAGS_DF; break;
    case ZYDIS_MNEMONIC_STD: x->s.rflags |= RFLAGS_DF; break;
    default: return ud(x);
    }
    return X_OK;
}

// Undocumented, on every processor in 16 and 32-bit modes: AL = CF ? ff : 0.
static enum xres emul_salc(struct xcpu *x, struct insn *in) {
    gpr_write(x, X86_RAX, 1, x->s.rflags & RFLAGS_CF ? 0xff : 0);
    return X_OK;
}

EMUL_TABLE(emul_misc_entries, E(NOP, emul_nop), E(ENDBR32, emul_nop), E(ENDBR64, emul_nop), E(PREFETCH, emul_nop),
           E(PREFETCHNTA, emul_nop), E(PREFETCHT0, emul_nop), E(PREFETCHT1, emul_nop), E(PREFETCHT2, emul_nop),
           E(PREFETCHW, emul_nop), E(PREFETCHWT1, emul_nop), E(LFENCE, emul_fence), E(MFENCE, emul_fence),
           E(SFENCE, emul_fence), E(CBW, emul_cbw), E(CWDE, emul_cbw), E(CDQE, emul_cbw), E(CWD, emul_cwd),
           E(CDQ, emul_cwd), E(CQO, emul_cwd), E(LAHF, emul_lahf), E(SAHF, emul_sahf), E(CLC, emul_flag),
           E(STC, emul_flag), E(CMC, emul_flag), E(CLD, emul_flag), E(STD, emul_flag), E(SALC, emul_salc));
