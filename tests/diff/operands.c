// SPDX-License-Identifier: Apache-2.0
// Inputs: registers, flags and vector state, then what one instruction needs so that its memory accesses hit the data
// pages (their edges, the read-only and missing ones included) and its branches hit the code pages.
#include <string.h>

#include "tests/diff/diff.h"

static bool is_32(const struct input *in) {
    return in->mode == MODE_32;
}

void input_random(struct input *in, enum code_mode mode, bool mask_fp) {
    memset(in, 0, offsetof(struct input, xsave));
    in->mode = mode;
    for (unsigned i = 0; i < 16; i++)
        in->gpr[i] = mode == MODE_32 ? (i < 8 ? (uint32_t)random_value() : 0) : random_value();
    in->gpr[X86_RSP] = DATA_VA + 4096 + 8 * random_below(1024);
    in->rflags = RFLAGS_IF | RFLAGS_FIXED1 | (random_u64() & RFLAGS_ARITH);
    if (random_chance(8))
        in->rflags |= RFLAGS_DF;
    in->fs_base = random_chance(50) ? random_below(4096) : 0;
    in->gs_base = random_chance(50) ? random_below(4096) : 0;
    random_xsave(in->xsave, mask_fp);
}

// ---- where an access goes ----

static uint64_t in_pages(unsigned first, unsigned count, unsigned size) {
    static const uint8_t align[] = {1, 1, 4, 8, 16, 32};
    unsigned a = align[random_below(6)], span = count * 4096 - size;
    return DATA_VA + first * 4096 + random_below(span) / a * a;
}

static uint64_t across(unsigned page, unsigned size) { // some bytes of it before the start of the page
    unsigned before = size > 1 ? 1 + random_below(size - 1) : 1;
    return DATA_VA + page * 4096 - before;
}

static uint64_t bad_address(bool low) {
    static const uint64_t far[] = {0x0000800000000000, 0x8000000000000000, 0xfffe000000000000, 0x00007ffffffffff9,
                                   0xfffffffffffffffc, 0x7fffffffffffffff, 0xffff7fffffffffff, 0xffff800000000ff0};
    static const uint64_t near[] = {0, 0x10, 0xfff, DATA_VA - 4096, DATA_VA + DATA_BYTES, CODE_VA - 16, 0xffffffc0};
    return low || random_chance(40) ? near[random_below(7)] + random_below(8) : far[random_below(8)];
}

uint64_t pick_address(unsigned size, bool low) {
    if (!size)
        size = 1;
    unsigned p = random_below(100);
    if (p < 70)
        return in_pages(0, 4, size);
    if (p < 80)
        return across(1 + random_below(3), size);
    if (p < 84)
        return across(4, size); // into the read-only page
    if (p < 87)
        return in_pages(4, 1, size);
    if (p < 91)
        return across(5, size); // read-only, then missing
    if (p < 93)
        return across(8, size); // writable, then missing
    if (p < 95)
        return across(9, size); // missing, then read-only
    if (p < 97)
        return in_pages(5, 1, size);
    return bad_address(low);
}

// ---- registers for it ----

static int gpr_index(ZydisRegister r) {
    if (r == ZYDIS_REGISTER_NONE)
        return -1;
    return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

static void set_reg(struct input *in, int reg, uint64_t v) {
    in->gpr[reg] = is_32(in) ? (uint32_t)v : v;
}

static uint64_t segment_base(const struct input *in, ZydisRegister seg) {
    if (is_32(in)) // FS and GS hold a null selector there: any access faults
        return 0;
    return seg == ZYDIS_REGISTER_FS ? in->fs_base : seg == ZYDIS_REGISTER_GS ? in->gs_base : 0;
}

// Chooses index and base so that base + index * scale + disp is the address.
static void solve(struct input *in, const ZydisDecodedOperand *o, uint64_t address) {
    int base = gpr_index(o->mem.base), index = gpr_index(o->mem.index);
    uint64_t rest = address - (uint64_t)(o->mem.disp.has_displacement ? o->mem.disp.value : 0), scale = o->mem.scale;
    if (o->mem.index == ZYDIS_REGISTER_NONE)
        index = -1;
    if (base >= 0 && index == base) {
        set_reg(in, base, rest / (scale + 1));
    } else if (base >= 0 && index >= 0) {
        if (index != X86_RSP)
            set_reg(in, index, random_chance(50) ? random_below(256) : random_u64() >> (is_32(in) ? 36 : 20));
        set_reg(in, base, rest - in->gpr[index] * scale);
    } else if (base >= 0) {
        set_reg(in, base, rest);
    } else if (index >= 0) {
        set_reg(in, index, rest / scale);
    }
}

// A gather: small element indices, mask elements random.
static void suit_gather(struct input *in, const struct decoded *d, const ZydisDecodedOperand *o) {
    unsigned index = (unsigned)ZydisRegisterGetId(o->mem.index);
    int base = gpr_index(o->mem.base);
    bool dwords = d->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERDD || d->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERDQ ||
                  d->z.mnemonic == ZYDIS_MNEMONIC_VGATHERDPS || d->z.mnemonic == ZYDIS_MNEMONIC_VGATHERDPD;
    for (unsigned i = 0; i < 32; i += dwords ? 4 : 8) {
        int64_t v = (int64_t)random_below(512) - 256;
        uint8_t *p = in->xsave + (i < 16 ? 160 + i : 576 + i - 16) + 16 * index;
        memcpy(p, &v, dwords ? 4 : 8);
    }
    if (base >= 0)
        set_reg(in, base, pick_address(64, false) - (uint64_t)(o->mem.disp.has_displacement ? o->mem.disp.value : 0));
}

uint64_t code_address(void) {
    return CODE_VA + 64 + random_below(CODE_PAGES * 4096 - 128);
}

static bool is_bit_test(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
}

// Bytes at an operand: mostly values at edges, for indirect branches a target.
static void fill_operand(const struct decoded *d, uint64_t address, unsigned size, bool target) {
    uint64_t v = target ? code_address() : random_value();
    unsigned n = size && size < 8 ? size : 8;
    if (size > 8 && random_chance(70)) {
        uint8_t vec[64];
        random_vector(vec, sizeof(vec));
        for (unsigned i = 0; i < size && i < 64; i++)
            if (world_data_at(address + i))
                *world_data_at(address + i) = vec[i];
        return;
    }
    for (unsigned i = 0; i < n; i++)
        if (world_data_at(address + i))
            *world_data_at(address + i) = (uint8_t)(v >> 8 * i);
}

static bool is_branch(const struct decoded *d) {
    return d->z.meta.category == ZYDIS_CATEGORY_CALL || d->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR;
}

static void suit_memory(struct input *in, const struct decoded *d, const ZydisDecodedOperand *o) {
    unsigned size = o->size / 8u;
    bool low = is_32(in) || d->z.address_width == 32;
    uint64_t address = pick_address(size ? size : 8, low), base = segment_base(in, o->mem.segment);
    if (random_chance(5)) // wrap-around of the address or of 32 bits
        address += low ? 1ull << 32 : 0;
    if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
        suit_gather(in, d, o);
        return;
    }
    if (o->mem.base != ZYDIS_REGISTER_RIP && o->mem.base != ZYDIS_REGISTER_EIP)
        solve(in, o, address - base);
    fill_operand(d, address, size, is_branch(d) && random_chance(85));
}

static void suit_register(struct input *in, const struct decoded *d, const ZydisDecodedOperand *o) {
    ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
    if (c != ZYDIS_REGCLASS_GPR64 && c != ZYDIS_REGCLASS_GPR32)
        return;
    if (is_branch(d) && random_chance(85))
        set_reg(in, gpr_index(o->reg.value), code_address());
}

static void suit_implicit(struct input *in, const struct decoded *d) {
    bool low = is_32(in) || d->z.address_width == 32;
    if (d->z.meta.category == ZYDIS_CATEGORY_STRINGOP) {
        set_reg(in, X86_RSI, pick_address(8, low) - segment_base(in, d->op[1].mem.segment));
        set_reg(in, X86_RDI, pick_address(8, low));
        set_reg(in, X86_RCX, random_chance(90) ? random_below(48) : random_below(9000));
        if (low && random_chance(20)) // the upper halves do not count
            in->gpr[X86_RCX] |= is_32(in) ? 0 : 1ull << 40;
        if (random_chance(30))
            in->rflags ^= RFLAGS_DF;
    }
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_XLAT: set_reg(in, X86_RBX, pick_address(256, low)); break;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: set_reg(in, X86_RDI, pick_address(16, low)); break;
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_ENTER: set_reg(in, X86_RBP, pick_address(64, is_32(in))); break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ: set_reg(in, X86_RCX, random_below(3) | (random_chance(20) ? 1ull << 32 : 0)); break;
    default: break;
    }
}

static bool uses_stack(const struct decoded *d) {
    return d->z.meta.category == ZYDIS_CATEGORY_PUSH || d->z.meta.category == ZYDIS_CATEGORY_POP ||
           d->z.meta.category == ZYDIS_CATEGORY_CALL || d->z.meta.category == ZYDIS_CATEGORY_RET ||
           d->z.mnemonic == ZYDIS_MNEMONIC_ENTER;
}

static void suit_stack(struct input *in, const struct decoded *d) {
    uint64_t rsp = pick_address(16, is_32(in)) + (random_chance(50) ? 0 : 8);
    bool ret = d->z.meta.category == ZYDIS_CATEGORY_RET;
    set_reg(in, X86_RSP, random_chance(80) ? rsp & ~7ull : rsp);
    if (!is_32(in) && random_chance(3))
        in->gpr[X86_RSP] = bad_address(false);
    fill_operand(d, in->gpr[X86_RSP], 8, ret && random_chance(85));
}

void input_suit(struct input *in, const struct decoded *d) {
    if (uses_stack(d))
        suit_stack(in, d);
    suit_implicit(in, d);
    for (unsigned i = 0; i < d->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            suit_register(in, d, o);
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            d->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
            suit_memory(in, d, o);
    }
    if (is_bit_test(d->z.mnemonic) && d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && random_chance(85)) {
        int r = gpr_index(d->op[1].reg.value);
        if (gpr_index(d->op[0].mem.base) != r && gpr_index(d->op[0].mem.index) != r && r != X86_RSP)
            set_reg(in, r, (uint64_t)(int64_t)((int)random_below(4096) - 2048));
    }
}
