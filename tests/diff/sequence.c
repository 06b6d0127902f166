// SPDX-License-Identifier: Apache-2.0
// Short sequences: what one instruction alone does not show - which flags are live, registers that translated code
// keeps in memory (R13 to R15) or elsewhere (RSP), jumps inside a page and over pages, chained and looping blocks.
//
// Memory is addressed by three registers and a small index that no instruction of the sequence writes. All branches
// but that of the closing loop go forward, so every sequence ends.
#include <string.h>

#include "tests/diff/diff.h"

static const uint8_t class_weights[CLASS_COUNT] = {
    [CLASS_INT] = 50, [CLASS_FLOW] = 16, [CLASS_STRING] = 4, [CLASS_X87] = 8,
    [CLASS_MMX] = 4,  [CLASS_SSE] = 10,  [CLASS_AVX] = 8};

static unsigned stray_percent; // instructions that may leave the sequence or address anything

static enum insn_class pick_class(void) {
    unsigned r = random_below(100), c = 0;
    while (c + 1 < CLASS_COUNT && r >= class_weights[c])
        r -= class_weights[c++];
    return (enum insn_class)c;
}

// ---- which instructions fit ----

static int gpr_id(ZydisRegister r) {
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    return ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(full) : -1;
}

static bool is_kept(const struct test_case *t, int reg) {
    const struct pointers *p = &t->pointers;
    return reg >= 0 &&
           (reg == p->base[0] || reg == p->base[1] || reg == p->base[2] || reg == p->index || reg == t->counter);
}

static bool moves_stack(const struct decoded *d) {
    return d->z.meta.category == ZYDIS_CATEGORY_PUSH || d->z.meta.category == ZYDIS_CATEGORY_POP ||
           d->z.meta.category == ZYDIS_CATEGORY_CALL || d->z.meta.category == ZYDIS_CATEGORY_RET;
}

static bool writes_kept(const struct test_case *t, const struct decoded *d) {
    for (unsigned i = 0; i < d->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        int reg = gpr_id(o->reg.value);
        if (is_kept(t, reg) && !(reg == X86_RSP && moves_stack(d)))
            return true;
    }
    return false;
}

// Addresses by a register that may hold anything.
static bool strays(const struct test_case *t, const struct decoded *d) {
    for (unsigned i = 0; i < d->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        int base = gpr_id(o->mem.base);
        if (base >= 0 && base != X86_RSP && !is_kept(t, base))
            return true;
    }
    return false;
}

static bool is_relative(const struct decoded *d) {
    return d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && d->op[0].imm.is_relative;
}

static bool fits(const struct test_case *t, const struct decoded *d, enum code_mode mode) {
    bool branch = d->z.meta.category == ZYDIS_CATEGORY_CALL || d->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR;
    if (mode == MODE_64_KERNEL &&
        (differs_at_cpl0(d) || d->z.mnemonic == ZYDIS_MNEMONIC_POPF || d->z.mnemonic == ZYDIS_MNEMONIC_POPFQ))
        return false;
    // They load and store x87 pointers; see compare.c for these.
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FLDENV || d->z.mnemonic == ZYDIS_MNEMONIC_FRSTOR ||
        d->z.mnemonic == ZYDIS_MNEMONIC_FNSTENV || d->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE)
        return false;
    // With a mask of zeros they may fault or not, after which a loop goes different ways.
    if (d->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || d->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
        d->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU)
        return false;
    if (branch && !is_relative(d)) // through registers: branch_pair
        return false;
    if (is_relative(d) && d->z.operand_width == 16) // target below 64 KiB
        return false;
    if (d->z.meta.category == ZYDIS_CATEGORY_STRINGOP && d->z.address_width == 32 && mode != MODE_32)
        return false; // see compare.c, string_a32
    if (d->z.meta.category == ZYDIS_CATEGORY_RET || d->z.meta.category == ZYDIS_CATEGORY_INTERRUPT)
        return random_chance(stray_percent);
    return !writes_kept(t, d) && (!strays(t, d) || random_chance(stray_percent));
}

// ---- putting them together ----

static void append(struct test_case *t, const uint8_t *bytes, unsigned len) {
    memcpy(t->code + t->len, bytes, len);
    t->offset[t->ninsns] = (uint16_t)t->len;
    t->size[t->ninsns++] = (uint8_t)len;
    t->len += len;
}

static bool append_random(struct test_case *t, enum code_mode mode) {
    struct decoded d;
    for (unsigned tries = 0; tries < 200; tries++) {
        if (!build_insn(mode != MODE_32, pick_class(), t->va + t->len, &t->pointers, &d) || !fits(t, &d, mode))
            continue;
        append(t, d.bytes, d.len);
        return true;
    }
    return false;
}

// lea reg, [rip + to the end]; jmp or call reg. The displacement is set when the end is known.
static void append_branch_pair(struct test_case *t) {
    unsigned r;
    do
        r = random_below(16);
    while (is_kept(t, (int)r) || r == X86_RSP);
    uint8_t lea[7] = {(uint8_t)(0x48 | (r >> 3) << 2), 0x8d, (uint8_t)(5 | (r & 7) << 3)};
    uint8_t go[3] = {(uint8_t)(0x40 | r >> 3), 0xff, (uint8_t)(0xc0 | (random_chance(50) ? 2 : 4) << 3 | (r & 7))};
    append(t, lea, 7);
    append(t, go, 3);
}

// dec counter; jnz start
static void append_loop(struct test_case *t, bool is64) {
    unsigned r = (unsigned)t->counter;
    uint8_t dec[3] = {(uint8_t)(0x48 | r >> 3), 0xff, (uint8_t)(0xc8 | (r & 7))};
    uint8_t jnz[6] = {0x0f, 0x85};
    append(t, is64 ? dec : dec + 1, is64 ? 3 : 2);
    int32_t back = -(int32_t)(t->len + 6);
    memcpy(jnz + 2, &back, 4);
    append(t, jnz, 6);
}

// ---- branches ----

// A loop's JNZ is no target, the counting is not to be left out; nor is the jump of a branch pair, whose register may
// hold its own address.
static bool is_target(const struct test_case *t, unsigned i) {
    const uint8_t *b = t->code + t->offset[i];
    bool pair = t->size[i] == 3 && b[0] >> 4 == 4 && b[1] == 0xff && b[2] >= 0xd0;
    return !pair && !(t->counter >= 0 && i == t->ninsns - 1);
}

// The start of a random instruction from number `first` on, or of what ends the sequence.
static unsigned forward_target(const struct test_case *t, unsigned first) {
    unsigned i = first + random_below(t->ninsns + 1 - first);
    while (i < t->ninsns && !is_target(t, i))
        i++;
    return i < t->ninsns ? t->offset[i] : t->len;
}

static void aim_branch(struct test_case *t, unsigned i, const struct decoded *d) {
    unsigned next = t->offset[i] + t->size[i], to = forward_target(t, i + 1);
    int32_t rel = (int32_t)(to - next);
    if (d->z.raw.imm[0].size == 8 && rel > 127)
        rel = 0;
    memcpy(t->code + t->offset[i] + d->z.raw.imm[0].offset, &rel, d->z.raw.imm[0].size / 8);
}

static void aim_branches(struct test_case *t, bool is64, unsigned count) {
    struct decoded d;
    for (unsigned i = 0; i < count; i++) {
        if (!decode(is64, t->code + t->offset[i], t->size[i], &d) || d.len != t->size[i])
            continue;
        if (is_relative(&d))
            aim_branch(t, i, &d);
        // The LEA of a branch pair has no displacement yet, and none has it by chance.
        if (d.z.mnemonic == ZYDIS_MNEMONIC_LEA && d.op[1].mem.base == ZYDIS_REGISTER_RIP &&
            d.op[1].mem.disp.value == 0) {
            int32_t rel = (int32_t)(forward_target(t, i + 2) - t->offset[i] - t->size[i]);
            memcpy(t->code + t->offset[i] + 3, &rel, 4);
        }
    }
}

// ---- registers ----

static unsigned free_reg(const struct test_case *t, bool is64, bool rsp) {
    unsigned r;
    do
        r = random_below(is64 ? 16 : 8);
    while (is_kept(t, (int)r) || (r == X86_RSP && !rsp));
    return r;
}

static void choose_registers(struct test_case *t, bool is64) {
    t->counter = -1;
    t->pointers = (struct pointers){.fixed = true, .base = {0xff, 0xff, 0xff}, .index = 0xff};
    for (unsigned i = 0; i < 3; i++)
        t->pointers.base[i] = (uint8_t)free_reg(t, is64, true);
    t->pointers.index = (uint8_t)free_reg(t, is64, false);
    if (random_chance(30))
        t->counter = (int)free_reg(t, is64, false);
}

void sequence_input(const struct test_case *t, struct input *in, enum code_mode mode) {
    unsigned edge = random_chance(6) ? 4096 * random_below(DATA_PAGES - 2) : 0;
    input_random(in, mode, random_chance(90));
    for (unsigned i = 0; i < 3; i++)
        in->gpr[t->pointers.base[i]] = DATA_VA + edge + 4096 + random_below(4096);
    if (random_chance(80))
        for (unsigned i = 0; i < 3; i++)
            in->gpr[t->pointers.base[i]] &= ~31ull;
    in->gpr[t->pointers.index] = random_chance(80) ? random_below(16) * 16 : random_below(256);
    if (t->counter >= 0)
        in->gpr[t->counter] = 1 + random_below(12);
    in->rip = t->va;
}

static void start(struct test_case *t, bool is64) {
    t->va = CODE_VA + 256 + random_below((CODE_PAGES - 2) * 4096);
    if (random_chance(25)) // over a page boundary
        t->va = CODE_VA + 4096 * (1 + random_below(CODE_PAGES - 2)) - 1 - random_below(40);
    t->len = t->ninsns = 0;
    choose_registers(t, is64);
}

static void finish(struct test_case *t, struct input *in, enum code_mode mode) {
    unsigned count = t->ninsns;
    if (t->counter >= 0)
        append_loop(t, mode != MODE_32);
    aim_branches(t, mode != MODE_32, count);
    memcpy(t->code + t->len, "\x0f\x0b", 2);
    sequence_input(t, in, mode);
}

bool sequence_build(struct test_case *t, struct input *in, enum code_mode mode) {
    bool is64 = mode != MODE_32;
    unsigned want = random_chance(75) ? 2 + random_below(5) : 8 + random_below(40);
    stray_percent = want < 8 ? 4 : 1;
    start(t, is64);
    while (t->ninsns < want) {
        if (is64 && random_chance(5))
            append_branch_pair(t);
        else if (!append_random(t, mode))
            return false;
    }
    finish(t, in, mode);
    return true;
}

// ---- programs for supervisor mode ----

#define R(reg) (1u << X86_##reg)
// Pieces that clobber nothing but the registers named; each is one unit that branches do not enter.
static const struct snippet {
    const char *bytes;
    uint8_t len;
    uint16_t clobbers;
} snippets[] = {
    {"\xfa", 1, 0},                                                        // cli
    {"\xfb\x90", 2, 0},                                                    // sti; nop
    {"\xfb\xfa", 2, 0},                                                    // sti; cli
    {"\x9c\x9d", 2, 0},                                                    // pushfq; popfq
    {"\xfd", 1, 0},                                                        // std
    {"\xfc", 1, 0},                                                        // cld
    {"\x0f\x01\xf8", 3, 0},                                                // swapgs
    {"\x0f\x06", 2, 0},                                                    // clts
    {"\x0f\x20\xc0\x0f\x22\xc0", 6, R(RAX)},                               // mov rax, cr0; mov cr0, rax
    {"\x0f\x20\xda\x0f\x22\xda", 6, R(RDX)},                               // mov rdx, cr3; mov cr3, rdx
    {"\x0f\x20\xe1\x0f\x22\xe1", 6, R(RCX)},                               // mov rcx, cr4; mov cr4, rcx
    {"\x0f\x22\xd6\x0f\x20\xd3", 6, R(RBX)},                               // mov cr2, rsi; mov rbx, cr2
    {"\x44\x0f\x20\xc0", 4, R(RAX)},                                       // mov rax, cr8
    {"\x0f\x21\xf8\x0f\x23\xf8", 6, R(RAX)},                               // mov rax, dr7; mov dr7, rax
    {"\x0f\xa2", 2, R(RAX) | R(RBX) | R(RCX) | R(RDX)},                    // cpuid
    {"\xb9\x00\x01\x00\xc0\x0f\x32", 7, R(RAX) | R(RCX) | R(RDX)},         // rdmsr of FS base
    {"\xb9\x02\x01\x00\xc0\x0f\x32\x0f\x30", 9, R(RAX) | R(RCX) | R(RDX)}, // and wrmsr, KERNEL_GS_BASE
    {"\x0f\x01\x3c\x24", 4, 0},                                            // invlpg [rsp]
    {"\xe6\x80", 2, 0},                                                    // out 0x80, al
    {"\xe5\x80", 2, R(RAX)},                                               // in eax, 0x80
    {"\x0f\x01\xcb\x0f\x01\xca", 6, 0},                                    // stac; clac
    {"\x8c\xd0\x8e\xd0\x90", 5, R(RAX)},                                   // mov eax, ss; mov ss, eax; nop
    {"\x8c\xda\x8e\xda", 4, R(RDX)},                                       // mov edx, ds; mov ds, edx
    {"\x0f\x00\xc8", 3, R(RAX)},                                           // str eax
    {"\x0f\x01\xe2", 3, R(RDX)},                                           // smsw edx
    {"\x31\xc9\x0f\x01\xd0", 5, R(RAX) | R(RCX) | R(RDX)},                 // xgetbv
    {"\xf3\x48\x0f\xae\xc1", 5, R(RCX)},                                   // rdfsbase rcx
    {"\x48\x89\xe0\x6a\x18\x50\x9c\x6a\x10\x48\x8d\x05\x03\x00\x00\x00\x50\x48\xcf", 19, R(RAX)}, // iretq
    {"\x0f\xae\xf0", 3, 0},                                                                       // mfence
    {"\xf3\x90", 2, 0},                                                                           // pause
};

static bool clobbers_kept(const struct test_case *t, uint16_t regs) {
    for (int r = 0; r < 16; r++)
        if ((regs >> r & 1) && is_kept(t, r))
            return true;
    return false;
}

static void append_snippet(struct test_case *t) {
    const struct snippet *s = &snippets[random_below(sizeof(snippets) / sizeof(*snippets))];
    if (!clobbers_kept(t, s->clobbers))
        append(t, (const uint8_t *)s->bytes, s->len);
}

// mov rax, where a byte of the next but one is; mov [rax], cl; mov edx, what was just written: code that changes itself
// through another linear address.
static void append_self_modifying(struct test_case *t) {
    uint8_t b[17] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x08, 0xba};
    uint64_t at = KERNEL_VA + GPA_CODE + (t->va - CODE_VA) + t->len + 13 + random_below(4);
    if (clobbers_kept(t, R(RAX) | R(RDX)))
        return;
    memcpy(b + 2, &at, 8);
    append(t, b, sizeof(b));
}

bool program_build(struct test_case *t, struct input *in) {
    unsigned want = 8 + random_below(60);
    stray_percent = 0;
    start(t, true);
    while (t->ninsns < want) {
        unsigned r = random_below(100);
        if (r < 4)
            append_branch_pair(t);
        else if (r < 16)
            append_snippet(t);
        else if (r < 19)
            append_self_modifying(t);
        else if (!append_random(t, MODE_64_KERNEL))
            return false;
    }
    finish(t, in, MODE_64_KERNEL);
    return true;
}
