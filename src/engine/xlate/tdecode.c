// SPDX-License-Identifier: Apache-2.0
// Decoding and classification. Whatever is not known to run natively with nothing but its memory operand and
// registers replaced goes to a helper, in the end to the emulator: a new instruction is slow, never wrong.
#include "engine/xlate/tdecode_priv.h"

void tdecode_init(struct tdecoder *d) {
    ZydisDecoderInit(&d->d64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&d->d32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
}

// ---- registers ----

struct tgpr tdecode_gpr(ZydisRegister r) {
    struct tgpr g = {.num = NOREG};
    if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
        g.num = (int8_t)(r - ZYDIS_REGISTER_RAX), g.bits = 64;
    else if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
        g.num = (int8_t)(r - ZYDIS_REGISTER_EAX), g.bits = 32;
    else if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
        g.num = (int8_t)(r - ZYDIS_REGISTER_AX), g.bits = 16;
    else if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
        g.num = (int8_t)(r - ZYDIS_REGISTER_AL), g.bits = 8;
    else if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        g.num = (int8_t)(r - ZYDIS_REGISTER_AH), g.bits = 8, g.high = true;
    else if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        g.num = (int8_t)(r - ZYDIS_REGISTER_SPL + 4), g.bits = 8;
    return g;
}

static int base_num(ZydisRegister r) {
    if (r == ZYDIS_REGISTER_NONE)
        return NOREG;
    return tdecode_gpr(r).num;
}

enum x86_seg tdecode_seg(ZydisRegister r) {
    switch (r) {
    case ZYDIS_REGISTER_ES: return X86_ES;
    case ZYDIS_REGISTER_CS: return X86_CS;
    case ZYDIS_REGISTER_SS: return X86_SS;
    case ZYDIS_REGISTER_FS: return X86_FS;
    case ZYDIS_REGISTER_GS: return X86_GS;
    default: return X86_DS;
    }
}

// ---- which instructions run natively ----

enum unit { UNIT_NONE, UNIT_INT, UNIT_X87, UNIT_SSE, UNIT_AVX };

static enum unit unit_of(ZydisISASet s) {
    switch (s) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_PAUSE: return UNIT_INT;
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_PENTIUMMMX: return UNIT_X87;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SSE_PREFETCH: return UNIT_SSE;
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C: return UNIT_AVX;
    default: return UNIT_NONE;
    }
}

// FCOMI and its kin are x87 instructions in the Pentium Pro's set.
static enum unit unit_of_insn(const ZydisDecodedInstruction *z) {
    bool x87 = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xf8) == 0xd8;
    return x87 && unit_of(z->meta.isa_set) == UNIT_INT ? UNIT_X87 : unit_of(z->meta.isa_set);
}

static bool unit_enabled(enum unit u, uint32_t mode) {
    switch (u) {
    case UNIT_INT: return true;
    case UNIT_X87: return !(mode & TBM_NO_FPU);
    case UNIT_SSE: return !(mode & (TBM_NO_SSE | TBM_NO_FPU));
    case UNIT_AVX: return !(mode & (TBM_NO_AVX | TBM_NO_FPU));
    default: return false;
    }
}

// Of the units above, the ones that need more than a rewritten memory operand, or that the guest may do where the host
// would fault or, worse, would not (SYSENTER, INTO; CLI and STI at CPL 3).
static bool never_native(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_INTO:
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_SALC:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_STD:
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_ARPL: return true;
    default: return false;
    }
}

static bool is_nop(const ZydisDecodedInstruction *z) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCH: return true;
    default: return false;
    }
}

// ---- encoding ----

static void take_encoding(struct tinsn *t, const ZydisDecodedInstruction *z) {
    struct tenc *c = &t->enc;
    bool is64 = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    *c = (struct tenc){.opcode = z->opcode, .has_modrm = !!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM)};
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        uint8_t p = z->raw.prefixes[i].value;
        if (c->nlegacy < 4 && (p == 0x66 || p == 0xf2 || p == 0xf3 || p == 0xf0))
            c->legacy[c->nlegacy++] = p;
    }
    unsigned rx = 0, rb = 0;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        const uint8_t *v = t->bytes + z->raw.vex.offset;
        bool three = v[0] == 0xc4;
        uint8_t last = three ? v[2] : v[1];
        c->vex = true;
        c->nlegacy = 0;
        c->vex_l = (last >> 2) & 1;
        c->vex_pp = last & 3;
        c->vvvv = (~last >> 3) & 15;
        c->rex_w = three && (last & 0x80);
        c->map = three ? v[1] & 31 : 1;
        rx = !(v[1] & 0x80);
        rb = three && !(v[1] & 0x20);
        if (!is64)
            rx = rb = 0, c->vvvv &= 7;
    } else {
        c->map = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? 0
                 : z->opcode_map == ZYDIS_OPCODE_MAP_0F    ? 1
                 : z->opcode_map == ZYDIS_OPCODE_MAP_0F38  ? 2
                                                           : 3;
        if (is64 && (z->attributes & ZYDIS_ATTRIB_HAS_REX)) {
            c->rex_w = z->raw.rex.W;
            rx = z->raw.rex.R;
            rb = z->raw.rex.B;
            c->force_rex = true;
        }
    }
    unsigned tail;
    if (c->has_modrm) {
        c->reg = (uint8_t)(z->raw.modrm.reg | rx << 3);
        c->rm = (uint8_t)(z->raw.modrm.rm | rb << 3);
        tail = z->raw.modrm.offset + 1u;
        if (z->raw.modrm.mod != 3 && z->raw.modrm.rm == 4 && z->address_width != 16)
            tail++;
        tail += z->raw.disp.size / 8;
    } else {
        c->rm = (uint8_t)((z->opcode & 7) | rb << 3);
        tail = z->raw.imm[0].size ? z->raw.imm[0].offset : z->length;
    }
    c->ntail = (uint8_t)(z->length - tail);
    if (c->ntail > sizeof(c->tail))
        c->ntail = 0;
    for (unsigned i = 0; i < c->ntail; i++)
        c->tail[i] = t->bytes[tail + i];
}

// Takes one visible operand; false when it is of a kind that is not native.
static bool take_operand(struct tinsn *t, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o) {
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return true;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (t->mem_size || (o->mem.type != ZYDIS_MEMOP_TYPE_MEM && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN))
            return false;
        if (z->address_width == 16 ||
            (o->mem.type == ZYDIS_MEMOP_TYPE_MEM && (o->size % 8 || o->size > 256 || !o->size)))
            return false;
        t->mem_size = o->mem.type == ZYDIS_MEMOP_TYPE_AGEN ? 1 : (uint8_t)(o->size / 8);
        t->mem_read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        t->mem_write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        t->mem_seg = (uint8_t)tdecode_seg(o->mem.segment);
        t->mem_disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
        t->mem_a32 = z->address_width == 32;
        t->mem_scale = o->mem.scale <= 1 ? 0 : o->mem.scale == 2 ? 1 : o->mem.scale == 4 ? 2 : 3;
        if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
            t->mem_rip = true;
            t->mem_base = t->mem_index = NOREG;
            t->mem_disp += (int64_t)(t->rip + z->length);
            return true;
        }
        t->mem_base = (int8_t)base_num(o->mem.base);
        t->mem_index = (int8_t)base_num(o->mem.index);
        return true;
    }
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    struct tgpr g = tdecode_gpr(o->reg.value);
    ZydisRegisterClass rc = ZydisRegisterGetClass(o->reg.value);
    if (g.num == NOREG)
        return rc == ZYDIS_REGCLASS_X87 || rc == ZYDIS_REGCLASS_MMX || rc == ZYDIS_REGCLASS_XMM ||
               rc == ZYDIS_REGCLASS_YMM;
    g.read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    // A conditional write leaves the old value: it counts as a read too.
    g.read |= !!(o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE);
    g.write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG: t->r_reg = g; return true;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM: t->r_rm = g; return true;
    case ZYDIS_OPERAND_ENCODING_NDSNDD: t->r_vvvv = g; return true;
    case ZYDIS_OPERAND_ENCODING_OPCODE: t->r_opc = g; return true;
    default: return g.num < 13 && g.num != X86_RSP; // implicit in the opcode
    }
}

// ---- flags ----

static bool count_in_cl(const ZydisDecodedInstruction *z, const struct tinsn *t) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return t->enc.ntail == 0 ? (z->opcode & 0xfe) != 0xd0 : (t->enc.tail[0] & 31) == 0;
    default: return false;
    }
}

bool tdecode_clears_af(const ZydisDecodedInstruction *z) {
    return z->mnemonic == ZYDIS_MNEMONIC_AND || z->mnemonic == ZYDIS_MNEMONIC_OR || z->mnemonic == ZYDIS_MNEMONIC_XOR ||
           z->mnemonic == ZYDIS_MNEMONIC_TEST;
}

static void take_flags(struct tinsn *t, const ZydisDecodedInstruction *z) {
    const ZydisAccessedFlags *f = z->cpu_flags;
    if (!f)
        return;
    t->flags_read = f->tested & RFLAGS_ARITH;
    t->flags_write = (f->modified | f->set_0 | f->set_1 | f->undefined) & RFLAGS_ARITH;
    t->flags_kill = (f->modified | f->set_0 | f->set_1) & RFLAGS_ARITH;
    if (tdecode_clears_af(z))
        t->flags_kill |= RFLAGS_AF;
    if (count_in_cl(z, t))
        t->flags_kill = 0; // a count of zero changes nothing
}

// ---- control flow and stack ----

static bool flow_class(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    const ZydisDecodedInstruction *z = &d->z;
    bool is64 = mode & TBM_64;
    uint64_t next = t->rip + z->length;
    if (z->operand_width == 16 && !is64)
        return false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP: {
        bool call = z->mnemonic == ZYDIS_MNEMONIC_CALL;
        if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || d->op[0].type == ZYDIS_OPERAND_TYPE_POINTER)
            return false;
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            t->cls = call ? T_CALL : T_JMP;
            t->target = next + (uint64_t)d->op[0].imm.value.s;
            if (!is64)
                t->target = (uint32_t)t->target;
            return true;
        }
        if (d->op[0].size != (is64 ? 64 : 32) || !take_operand(t, z, &d->op[0]))
            return false;
        t->cls = call ? T_CALL_IND : T_JMP_IND;
        return true;
    }
    case ZYDIS_MNEMONIC_RET:
        if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || (z->opcode & 0xfe) != 0xc2)
            return false;
        t->cls = T_RET;
        t->imm = z->opcode == 0xc2 ? (int64_t)d->op[0].imm.value.u : 0;
        return true;
    case ZYDIS_MNEMONIC_LEAVE: t->cls = T_LEAVE; return z->operand_width != 16;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
        if (z->address_width == 16)
            return false;
        t->cls = T_LOOP;
        t->target = next + (uint64_t)d->op[0].imm.value.s;
        t->mem_a32 = z->address_width == 32;
        if (!is64)
            t->target = (uint32_t)t->target;
        take_flags(t, z);
        return true;
    case ZYDIS_MNEMONIC_PUSH:
        if (z->operand_width == 16)
            return false;
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            t->imm = (z->opcode == 0x6a) ? (int8_t)d->op[0].imm.value.s : (int32_t)d->op[0].imm.value.s;
            t->cls = T_PUSH;
            t->r_opc.num = NOREG;
            return true;
        }
        if (!take_operand(t, z, &d->op[0]))
            return false;
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            t->cls = T_PUSH_MEM;
            return true;
        }
        t->cls = T_PUSH;
        if (t->r_opc.num == NOREG)
            t->r_opc = t->r_rm;
        return t->r_opc.num != NOREG;
    case ZYDIS_MNEMONIC_POP:
        if (z->operand_width == 16 || d->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || !take_operand(t, z, &d->op[0]))
            return false;
        t->cls = T_POP;
        if (t->r_opc.num == NOREG)
            t->r_opc = t->r_rm;
        return t->r_opc.num != NOREG;
    default:
        if (z->meta.category != ZYDIS_CATEGORY_COND_BR)
            return false;
        t->cls = T_JCC;
        t->cc = z->opcode & 15;
        t->target = next + (uint64_t)d->op[0].imm.value.s;
        if (!is64)
            t->target = (uint32_t)t->target;
        take_flags(t, z);
        return true;
    }
}

static bool is_flow(const ZydisDecodedInstruction *z) {
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP: return true;
    default: return z->mnemonic == ZYDIS_MNEMONIC_LEAVE;
    }
}

// ---- native instructions ----

// VEX.W chooses 64-bit general registers or integers in 64-bit mode, and nothing in 32-bit code.
static bool ignores_vex_w(const struct tinsn *t, const ZydisDecodedInstruction *z) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM: return true;
    default: return t->r_reg.num != NOREG || t->r_rm.num != NOREG || t->r_vvvv.num != NOREG;
    }
}

// In 32-bit code some encodings mean something else in 64-bit mode.
static bool reencode_32(struct tinsn *t, const ZydisDecodedInstruction *z) {
    if (t->enc.vex && t->enc.rex_w && ignores_vex_w(t, z))
        t->enc.rex_w = false;
    if (t->enc.vex && t->enc.map == 3 && t->enc.opcode >= 0x4a && t->enc.opcode <= 0x4c)
        t->enc.tail[0] &= 0x7f; // VBLENDV's fourth register
    if (t->enc.map != 0 || t->enc.vex)
        return true;
    if (z->opcode >= 0x40 && z->opcode <= 0x4f) { // inc/dec r32: FF /0, FF /1
        t->enc.has_modrm = true;
        t->enc.reg = (z->opcode >> 3) & 1;
        t->enc.rm = z->opcode & 7;
        t->enc.opcode = 0xff;
        t->r_rm = t->r_opc;
        t->r_opc.num = NOREG;
        return true;
    }
    if (z->opcode == 0x82)
        t->enc.opcode = 0x80;
    return true;
}

static bool high_byte_conflict(const struct tinsn *t, const ZydisDecodedInstruction *z) {
    const struct tgpr *g[] = {&t->r_reg, &t->r_rm};
    unsigned highs = 0;
    for (unsigned i = 0; i < 2; i++)
        highs += g[i]->num != NOREG && g[i]->high;
    if (!highs)
        return false;
    // With memory the AH..BH operand is moved to AL..BL for the instruction: the low half must not be used by it.
    return t->mem_size && (z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG || z->mnemonic == ZYDIS_MNEMONIC_XADD);
}

// The memory form of these means something else, or locks, or leaves another OF (rotates).
static bool rm_or_memory(const ZydisDecodedInstruction *z) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_XADD: return false;
    default:
        return (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) && z->meta.category != ZYDIS_CATEGORY_ROTATE &&
               unit_of(z->meta.isa_set) == UNIT_INT;
    }
}

static bool native_class(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    const ZydisDecodedInstruction *z = &d->z;
    if (!unit_enabled(unit_of_insn(z), mode) || never_native(z->mnemonic))
        return false;
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
            (o->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT && o->encoding == ZYDIS_OPERAND_ENCODING_NONE)) {
            if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
                return false; // string-like
            continue;
        }
        if (!take_operand(t, z, o))
            return false;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_BSF || z->mnemonic == ZYDIS_MNEMONIC_BSR)
        t->r_reg.read = true; // a source of zero leaves it as it is
    bool vzero = z->mnemonic == ZYDIS_MNEMONIC_VZEROALL || z->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER;
    if (vzero && !(mode & TBM_64))
        return false; // only the eight registers of 32-bit code
    take_encoding(t, z);
    take_flags(t, z);
    if (!(mode & TBM_64) && !reencode_32(t, z))
        return false;
    if (high_byte_conflict(t, z))
        return false;
    t->rm_or_memory = rm_or_memory(z);
    t->op_bits = z->operand_width;
    if (z->mnemonic == ZYDIS_MNEMONIC_LEA) {
        t->cls = T_LEA;
        return true;
    }
    if (!t->mem_size) {
        t->cls = T_COPY;
        return true;
    }
    if (!t->enc.has_modrm) {
        if (z->mnemonic != ZYDIS_MNEMONIC_MOV)
            return false;
        t->cls = T_MOFFS;
        return true;
    }
    bool bt = z->mnemonic == ZYDIS_MNEMONIC_BT || z->mnemonic == ZYDIS_MNEMONIC_BTS ||
              z->mnemonic == ZYDIS_MNEMONIC_BTR || z->mnemonic == ZYDIS_MNEMONIC_BTC;
    t->cls = bt && t->r_reg.num != NOREG ? T_BT_MEM : T_MEM;
    return !(t->cls == T_BT_MEM && z->operand_width == 16);
}

// Memory operands that need a segment check are left to the emulator (32-bit code only).
static bool segment_odd(const struct tinsn *t, uint32_t mode) {
    if (!t->mem_size || (mode & TBM_64) || t->cls == T_LEA)
        return false;
    switch (t->mem_seg) {
    case X86_FS: return mode & TBM_FS_ODD;
    case X86_GS: return mode & TBM_GS_ODD;
    case X86_DS:
    case X86_ES: return mode & TBM_DSES_ODD;
    case X86_CS: return t->mem_write;
    default: return false;
    }
}

// ---- effects on registers ----

static bool address_sized(const struct tgpr *g, uint32_t mode) {
    return g->num != NOREG && g->bits == (mode & TBM_64 ? 64 : 32);
}

static struct tgpr gpr_operand(const ZydisDecodedOperand *o) {
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER ? tdecode_gpr(o->reg.value) : (struct tgpr){.num = NOREG};
}

// Recognises what keeps an address known relative to an earlier one: add, sub, inc, dec, lea, mov.
static void find_adjustment(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    const ZydisDecodedInstruction *z = &d->z;
    const ZydisDecodedOperand *b = &d->op[1];
    struct tgpr dst = gpr_operand(&d->op[0]), src;
    if (t->cls != T_COPY && t->cls != T_LEA)
        return;
    t->adjust_narrow = dst.num != NOREG && (mode & TBM_64) && dst.bits == 32;
    if (!address_sized(&dst, mode) && !t->adjust_narrow)
        return;
    t->adjust_reg = t->adjust_src = dst.num;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_INC: t->adjust = ADJ_ADD, t->adjust_imm = 1; break;
    case ZYDIS_MNEMONIC_DEC: t->adjust = ADJ_ADD, t->adjust_imm = -1; break;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (b->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return;
        t->adjust = ADJ_ADD;
        t->adjust_imm = z->mnemonic == ZYDIS_MNEMONIC_ADD ? b->imm.value.s : -b->imm.value.s;
        break;
    case ZYDIS_MNEMONIC_MOV:
        src = gpr_operand(b);
        if (src.num == NOREG || src.bits != dst.bits)
            return;
        t->adjust = ADJ_COPY, t->adjust_src = src.num, t->adjust_imm = 0;
        break;
    case ZYDIS_MNEMONIC_LEA:
        if (t->mem_base == NOREG || t->mem_index != NOREG || t->mem_a32 != !(mode & TBM_64))
            return;
        t->adjust = ADJ_COPY, t->adjust_src = t->mem_base, t->adjust_imm = t->mem_disp;
        break;
    default: break;
    }
}

static void find_writes(struct tdecoder *d, struct tinsn *t, uint32_t mode) {
    for (unsigned i = 0; i < d->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        struct tgpr g = tdecode_gpr(o->reg.value);
        if (g.num == NOREG)
            continue;
        t->gpr_used |= (uint16_t)(1u << g.num);
        if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            t->gpr_write |= (uint16_t)(1u << g.num);
    }
    find_adjustment(d, t, mode);
}

static void clear_operands(struct tinsn *t) {
    t->r_reg.num = t->r_rm.num = t->r_vvvv.num = t->r_opc.num = NOREG;
    t->mem_size = 0;
    t->mem_base = t->mem_index = NOREG;
    t->mem_rip = false;
    t->flags_read = t->flags_kill = t->flags_write = 0;
    t->enc.nlegacy = 0;
    t->gpr_write = t->gpr_used = 0;
    t->rm_or_memory = false;
    t->adjust = ADJ_NONE;
    t->adjust_narrow = false;
    t->access[0].group = t->access[1].group = NOGROUP;
    t->access[0].leader = t->access[1].leader = false;
    t->access[0].hoisted = t->access[1].hoisted = false;
}

bool tdecode(struct tdecoder *d, struct xcpu *x, struct tinsn *t, unsigned avail) {
    uint32_t mode = x->tb_mode;
    const ZydisDecoder *dec = mode & TBM_64 ? &d->d64 : &d->d32;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, t->bytes, avail, &d->z, d->op)))
        return false;
    const ZydisDecodedInstruction *z = &d->z;
    t->len = z->length;
    clear_operands(t);
    if (is_nop(z)) {
        t->cls = T_NOP;
        return true;
    }
    bool known = false;
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        known = tdecode_string(t, z);
    else if (tdecode_system(d, t, mode, xcpu_policy(x)))
        known = true;
    else
        known = is_flow(z) ? flow_class(d, t, mode) : native_class(d, t, mode);
    if (known && !segment_odd(t, mode)) {
        if (t->cls == T_AC && !(mode & TBM_SMAP))
            t->cls = t->imm ? T_FLAG_SET : T_FLAG_CLEAR, t->imm = RFLAGS_AC;
        find_writes(d, t, mode);
        return true;
    }
    clear_operands(t);
    // Integer and vector instructions that only lacked scratch registers go on in the block; the rest may change
    // anything (mode, segments, control flow), so the block ends.
    bool simple = unit_enabled(unit_of_insn(z), mode) && !never_native(z->mnemonic) && !is_flow(z) &&
                  !(z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) && z->meta.category != ZYDIS_CATEGORY_SYSTEM &&
                  z->meta.category != ZYDIS_CATEGORY_INTERRUPT && z->meta.category != ZYDIS_CATEGORY_SEGOP;
    for (unsigned i = 0; simple && i < z->operand_count; i++)
        if (d->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && d->op[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            ZydisRegisterGetClass(d->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            simple = false;
    tdecode_helper(t, simple ? H_EMULATE : H_EMULATE_END, !simple, true);
    return true;
}
