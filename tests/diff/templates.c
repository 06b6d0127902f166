// SPDX-License-Identifier: Apache-2.0
// Every encoding that decodes to an instruction under test, found by trying them all, by class and mnemonic.
#include <stdlib.h>
#include <string.h>

#include "core/types.h"
#include "tests/diff/diff.h"

const char *const class_names[CLASS_COUNT] = {"int", "flow", "string", "x87", "mmx", "sse", "avx", "priv"};

struct mnemonic_set {
    ZydisMnemonic mnemonic;
    struct insn_template *t;
    unsigned count, room;
};
struct class_set {
    struct mnemonic_set *m;
    unsigned count;
};
static struct class_set sets[2][CLASS_COUNT];
static ZydisDecoder decoders[2];

bool decode(bool is64, const uint8_t *bytes, unsigned len, struct decoded *d) {
    memset(d->bytes, 0, sizeof(d->bytes));
    memcpy(d->bytes, bytes, len < 15 ? len : 15);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[is64], d->bytes, len < 15 ? len : 15, &d->z, d->op)))
        return false;
    d->len = d->z.length;
    return true;
}

// ---- classes ----

static enum insn_class class_of_set(ZydisISASet s) {
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
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_RDWRFSGS: return CLASS_INT;
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87: return CLASS_X87;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX: return CLASS_MMX;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_GFNI: return CLASS_SSE;
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C: return CLASS_AVX;
    default: return CLASS_COUNT;
    }
}

// What cannot be compared, and why.
static bool left_out(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSRET: // enters the host's kernel
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC: // differ
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: // other descriptor tables
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: // the bases are not part of the outcome
    case ZYDIS_MNEMONIC_CLZERO:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_INT1: return true;
    case ZYDIS_MNEMONIC_INT: return op[0].imm.value.u == 0x80; // a system call of the host
    default: break;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_MOVSXD && op[0].size == 16) // Zydis reads four bytes, processors two
        return true;
    if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return true;
    for (unsigned i = 0; i < z->operand_count_visible; i++) // writes of segment registers: other descriptor tables
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            (op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    return z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX;
}

static bool privileged(const ZydisDecodedInstruction *z) {
    return (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || z->meta.category == ZYDIS_CATEGORY_IO ||
           z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP || z->mnemonic == ZYDIS_MNEMONIC_CLI ||
           z->mnemonic == ZYDIS_MNEMONIC_STI;
}

enum insn_class insn_classify(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op) {
    enum insn_class c = class_of_set(z->meta.isa_set);
    if (c == CLASS_COUNT || left_out(z, op))
        return CLASS_COUNT;
    if (privileged(z))
        return CLASS_PRIV;
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_STRINGOP: return CLASS_STRING;
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_INTERRUPT: return CLASS_FLOW;
    default: break;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_LEAVE || z->mnemonic == ZYDIS_MNEMONIC_ENTER)
        return CLASS_FLOW;
    return c;
}

// ---- the encodings ----

static unsigned put_template(const struct insn_template *t, uint8_t modrm, uint8_t *b) {
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0;
    if (t->vex) {
        b[n++] = 0xc4;
        b[n++] = (uint8_t)(0xe0 | t->map);
        b[n++] = (uint8_t)(t->w << 7 | 0x78 | t->l << 2 | t->pp);
    } else {
        if (t->pp)
            b[n++] = prefixes[t->pp];
        if (t->w)
            b[n++] = 0x48;
        if (t->map)
            b[n++] = 0x0f;
        if (t->map >= 2)
            b[n++] = t->map == 2 ? 0x38 : 0x3a;
    }
    b[n++] = t->opcode;
    b[n++] = modrm;
    memset(b + n, 0, 15 - n);
    return 15;
}

static bool try_template(bool is64, const struct insn_template *t, uint8_t modrm, struct decoded *d) {
    uint8_t b[16];
    put_template(t, modrm, b);
    if (decode(is64, b, 15, d))
        return d->z.opcode == t->opcode; // else it was a prefix
    if (!t->vex)                         // gathers want their three registers to differ, others VEX.vvvv = 1111b
        return false;
    b[2] = (uint8_t)((b[2] & ~0x78) | (~5u & 15) << 3);
    if (decode(is64, b, 15, d))
        return true;
    b[4] = 4 | 3 << 3; // reg 3, [rax + xmm0]
    return t->mem && decode(is64, b, 15, d);
}

static void add(bool is64, enum insn_class c, ZydisMnemonic m, const struct insn_template *t) {
    struct class_set *s = &sets[is64][c];
    unsigned i;
    for (i = 0; i < s->count && s->m[i].mnemonic != m; i++)
        ;
    if (i == s->count) {
        s->m = realloc(s->m, ++s->count * sizeof(*s->m));
        s->m[i] = (struct mnemonic_set){.mnemonic = m};
    }
    struct mnemonic_set *k = &s->m[i];
    if (k->count == k->room) {
        k->room = k->room ? k->room * 2 : 8;
        k->t = realloc(k->t, k->room * sizeof(*k->t));
    }
    k->t[k->count++] = *t;
}

static void add_if_tested(bool is64, struct insn_template t, const struct decoded *d) {
    enum insn_class c = insn_classify(&d->z, d->op);
    t.has_modrm = d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (c != CLASS_COUNT)
        add(is64, c, d->z.mnemonic, &t);
}

// ModRM.reg selects the instruction, or it is free: one template for all.
static void try_regs(bool is64, struct insn_template t) {
    struct decoded d[8];
    bool ok[8], same = true;
    for (unsigned r = 0; r < 8; r++) {
        ok[r] = try_template(is64, &t, (uint8_t)((t.mem ? 0 : 0xc0) | r << 3), &d[r]);
        same &= ok[r] && d[r].z.mnemonic == d[0].z.mnemonic;
    }
    t.reg = 0xff;
    if (same) {
        if (t.mem || (d[0].z.attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
            if (!t.mem || (d[0].z.attributes & ZYDIS_ATTRIB_HAS_MODRM))
                add_if_tested(is64, t, &d[0]);
        } else {
            add_if_tested(is64, t, &d[0]);
        }
        return;
    }
    for (unsigned r = 0; r < 8; r++) {
        t.reg = (uint8_t)r;
        if (ok[r])
            add_if_tested(is64, t, &d[r]);
    }
}

static void try_x87(bool is64, struct insn_template t) {
    struct decoded d;
    for (unsigned m = 0xc0; m < 0x100; m++) {
        t.byte = (uint8_t)m;
        t.reg = 0xff;
        if (try_template(is64, &t, (uint8_t)m, &d))
            add_if_tested(is64, t, &d);
    }
}

static void try_opcode(bool is64, struct insn_template t) {
    for (unsigned mem = 0; mem < 2; mem++) {
        t.mem = mem;
        if (!t.vex && t.map == 0 && (t.opcode & 0xf8) == 0xd8 && !mem)
            try_x87(is64, t);
        else
            try_regs(is64, t);
    }
}

void templates_create(void) {
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned is64 = 0; is64 < 2; is64++)
        for (unsigned i = 0; i < 2u * 4 * 256 * 4 * 2 * 2; i++) {
            struct insn_template t = {.opcode = (uint8_t)i,
                                      .pp = i >> 8 & 3,
                                      .map = i >> 10 & 3,
                                      .w = i >> 12 & 1,
                                      .l = i >> 13 & 1,
                                      .vex = i >> 14 & 1};
            if ((t.vex && !t.map) || (!t.vex && t.l) || (!is64 && !t.vex && t.w))
                continue;
            if (!t.vex && !t.map && !is64 && (t.opcode == 0xc4 || t.opcode == 0xc5))
                continue;
            try_opcode(is64, t);
        }
}

unsigned templates_mnemonics(bool is64, enum insn_class c) {
    return sets[is64][c].count;
}

const struct insn_template *templates_pick(bool is64, enum insn_class c) {
    const struct class_set *s = &sets[is64][c];
    if (!s->count)
        return NULL;
    const struct mnemonic_set *m = &s->m[random_below(s->count)];
    return &m->t[random_below(m->count)];
}
