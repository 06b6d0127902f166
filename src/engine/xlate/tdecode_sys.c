// SPDX-License-Identifier: Apache-2.0
// Classification of string and system instructions: which are done in place, which by a helper of their own, which by
// the emulator.
#include "engine/xlate/tdecode_priv.h"

void tdecode_helper(struct tinsn *t, enum helper_id id, bool end, bool flags) {
    t->cls = end ? T_HELPER_END : T_HELPER;
    t->helper = (uint8_t)id;
    t->helper_flags = flags;
    if (flags) { // the helper reads the flags as a whole and leaves them as a whole
        t->flags_read = RFLAGS_ARITH;
        t->flags_kill = t->flags_write = RFLAGS_ARITH;
    } else {
        t->flags_read = t->flags_kill = t->flags_write = 0;
    }
}

bool tdecode_string(struct tinsn *t, const ZydisDecodedInstruction *z) {
    static const struct {
        ZydisMnemonic m;
        uint8_t helper, elem;
        bool flags;
    } table[] = {
        {ZYDIS_MNEMONIC_MOVSB, H_MOVS, 1, false}, {ZYDIS_MNEMONIC_MOVSW, H_MOVS, 2, false},
        {ZYDIS_MNEMONIC_MOVSD, H_MOVS, 4, false}, {ZYDIS_MNEMONIC_MOVSQ, H_MOVS, 8, false},
        {ZYDIS_MNEMONIC_STOSB, H_STOS, 1, false}, {ZYDIS_MNEMONIC_STOSW, H_STOS, 2, false},
        {ZYDIS_MNEMONIC_STOSD, H_STOS, 4, false}, {ZYDIS_MNEMONIC_STOSQ, H_STOS, 8, false},
        {ZYDIS_MNEMONIC_LODSB, H_LODS, 1, false}, {ZYDIS_MNEMONIC_LODSW, H_LODS, 2, false},
        {ZYDIS_MNEMONIC_LODSD, H_LODS, 4, false}, {ZYDIS_MNEMONIC_LODSQ, H_LODS, 8, false},
        {ZYDIS_MNEMONIC_SCASB, H_SCAS, 1, true},  {ZYDIS_MNEMONIC_SCASW, H_SCAS, 2, true},
        {ZYDIS_MNEMONIC_SCASD, H_SCAS, 4, true},  {ZYDIS_MNEMONIC_SCASQ, H_SCAS, 8, true},
        {ZYDIS_MNEMONIC_CMPSB, H_CMPS, 1, true},  {ZYDIS_MNEMONIC_CMPSW, H_CMPS, 2, true},
        {ZYDIS_MNEMONIC_CMPSD, H_CMPS, 4, true},  {ZYDIS_MNEMONIC_CMPSQ, H_CMPS, 8, true},
    };
    if (z->meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
        if (table[i].m != z->mnemonic)
            continue;
        unsigned rep = (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) ? 1
                       : (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)                       ? 2
                                                                                        : 0;
        unsigned seg = X86_DS;
        if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
            seg = X86_FS;
        else if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
            seg = X86_GS;
        else if (z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
            return false;
        if (z->address_width == 16)
            return false;
        tdecode_helper(t, table[i].helper, false, table[i].flags);
        // bits: 0-3 element size, 4-5 rep, 6-8 segment, 9 address size 64
        t->helper_arg = (uint16_t)(table[i].elem | rep << 4 | seg << 6 | (z->address_width == 64) << 9);
        return true;
    }
    return false;
}

// Left to the emulator, without the end of the block.
static bool emulated_class(struct tinsn *t, const ZydisDecodedInstruction *z) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT: tdecode_helper(t, H_EMULATE, false, false); return true;
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_MASKMOVDQU: tdecode_helper(t, H_EMULATE, false, true); return true;
    case ZYDIS_MNEMONIC_INVLPG: tdecode_helper(t, H_EMULATE_END, true, true); return true;
    default: return false;
    }
}

static bool system_class(struct tinsn *t, const ZydisDecodedInstruction *z, uint32_t mode,
                         const struct cpuid_policy *policy) {
    bool user = mode & TBM_USER;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: tdecode_helper(t, H_SYSCALL, true, true); return true;
    case ZYDIS_MNEMONIC_SYSRET:
        tdecode_helper(t, H_SYSRET, true, true);
        t->helper_arg = z->operand_width == 64;
        return true;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        tdecode_helper(t, H_IRET, true, true);
        t->helper_arg = z->operand_width / 8;
        return true;
    case ZYDIS_MNEMONIC_SWAPGS: t->cls = T_SWAPGS; return !user && (mode & TBM_64);
    case ZYDIS_MNEMONIC_CLI: t->cls = T_FLAG_CLEAR, t->imm = RFLAGS_IF; return !user;
    case ZYDIS_MNEMONIC_CLD: t->cls = T_FLAG_CLEAR, t->imm = RFLAGS_DF; return true;
    case ZYDIS_MNEMONIC_STD: t->cls = T_FLAG_SET, t->imm = RFLAGS_DF; return true;
    case ZYDIS_MNEMONIC_STI:
        if (user)
            return false;
        t->cls = T_STI;
        return true;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        if ((mode & TBM_64) && z->operand_width == 64) {
            t->cls = T_PUSHF;
            t->flags_read = RFLAGS_ARITH;
            return true;
        }
        tdecode_helper(t, H_PUSHF, false, true);
        t->helper_arg = z->operand_width / 8;
        return true;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        tdecode_helper(t, H_POPF, true, true);
        t->helper_arg = z->operand_width / 8;
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        if (mode & (TBM_COUNT | TBM_NO_TSC)) // counted runs take their time through the one door
            tdecode_helper(t, H_RDTSC, false, false);
        else
            t->cls = T_RDTSC;
        t->helper_arg = z->mnemonic == ZYDIS_MNEMONIC_RDTSCP;
        return !t->helper_arg || policy->has_rdtscp;
    case ZYDIS_MNEMONIC_CPUID: tdecode_helper(t, H_CPUID, false, false); return true;
    case ZYDIS_MNEMONIC_RDMSR: tdecode_helper(t, H_RDMSR, false, false); return !user;
    case ZYDIS_MNEMONIC_WRMSR: tdecode_helper(t, H_WRMSR, true, false); return !user;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (user || !policy->has_smap)
            return false;
        t->cls = T_AC;
        t->imm = z->mnemonic == ZYDIS_MNEMONIC_STAC;
        return true;
    default: return false;
    }
}

// RDFSBASE and its relatives, 64-bit mode only.
static bool base_class(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    ZydisMnemonic m = d->z.mnemonic;
    bool read = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE;
    if (!read && m != ZYDIS_MNEMONIC_WRFSBASE && m != ZYDIS_MNEMONIC_WRGSBASE)
        return false;
    tdecode_helper(t, H_EMULATE, false, false);
    if ((mode & (TBM_64 | TBM_BASES | TBM_COUNT)) != (TBM_64 | TBM_BASES))
        return true; // #UD, or a block that counts
    t->cls = read ? T_READ_BASE : T_WRITE_BASE;
    t->r_rm = tdecode_gpr(d->op[0].reg.value);
    t->mem_seg = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE ? X86_FS : X86_GS;
    return true;
}

// MOV to and from control registers at CPL 0, and from segment registers to a general one.
static bool special_mov(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    const ZydisDecodedInstruction *z = &d->z;
    const ZydisDecodedOperand *dst = &d->op[0], *src = &d->op[1];
    if (z->mnemonic != ZYDIS_MNEMONIC_MOV || dst->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        src->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass dc = ZydisRegisterGetClass(dst->reg.value), sc = ZydisRegisterGetClass(src->reg.value);
    if (sc == ZYDIS_REGCLASS_SEGMENT) {
        t->r_rm = tdecode_gpr(dst->reg.value);
        t->mem_seg = (uint8_t)tdecode_seg(src->reg.value);
        t->cls = T_FROM_SEG;
        return true;
    }
    if ((mode & TBM_USER) || (dc != ZYDIS_REGCLASS_CONTROL && sc != ZYDIS_REGCLASS_CONTROL))
        return false;
    bool to = dc == ZYDIS_REGCLASS_CONTROL;
    unsigned cr = (unsigned)((to ? dst : src)->reg.value - ZYDIS_REGISTER_CR0);
    if (!to && (cr == 0 || cr == 2 || cr == 3 || cr == 4)) {
        t->r_rm = tdecode_gpr(dst->reg.value);
        t->imm = cr;
        t->cls = T_FROM_CR;
        return true;
    }
    if (!to)
        return false;
    tdecode_helper(t, H_TO_CR, true, false);
    t->helper_arg = (uint16_t)(cr | (unsigned)tdecode_gpr(src->reg.value).num << 4);
    return true;
}

bool tdecode_system(struct tdecoder *d, struct tinsn *t, uint32_t mode, const struct cpuid_policy *policy) {
    return system_class(t, &d->z, mode, policy) || emulated_class(t, &d->z) || base_class(d, t, mode) ||
           special_mov(d, t, mode);
}
