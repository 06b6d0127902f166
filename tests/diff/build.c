// SPDX-License-Identifier: Apache-2.0
// One random instruction from a template: registers, ModRM forms, prefixes, displacements, immediates.
#include <string.h>

#include "tests/diff/diff.h"

struct builder {
    uint8_t b[24];
    unsigned n;
    bool is64;
    const struct insn_template *t;
    const struct pointers *p;
    unsigned r, x, b_bit; // REX bits
    uint8_t modrm, sib, disp[4];
    bool has_sib, vsib;
    unsigned disp_len;
    bool a32;
};

static void put(struct builder *k, unsigned v) {
    k->b[k->n++] = (uint8_t)v;
}

static unsigned any_reg(const struct builder *k) {
    return random_below(k->is64 ? 16 : 8);
}

static void set_disp(struct builder *k, int32_t v, unsigned len) {
    memcpy(k->disp, &v, 4);
    k->disp_len = len;
}

static int32_t random_disp(const struct builder *k, unsigned len) {
    if (len == 1)
        return (int8_t)random_u64();
    if (k->p->fixed)
        return (int32_t)random_below(4000) - 2000;
    return random_chance(50) ? (int32_t)random_below(8192) - 4096 : (int32_t)random_value();
}

// mod, r/m, SIB and displacement around a base (-1: none) and an index (-1: none).
static void memory_form(struct builder *k, int base, int index, unsigned scale) {
    unsigned mod = random_below(3), rm = base < 0 ? 5 : (unsigned)base & 7;
    if (base >= 0 && rm == 5 && mod == 0)
        mod = 1;
    k->b_bit = base < 0 ? 0 : (unsigned)base >> 3;
    k->has_sib = index >= 0 || (base >= 0 && rm == 4) || base < 0 || random_chance(10);
    if (base < 0)
        mod = 0;
    if (k->has_sib) {
        k->sib = (uint8_t)(scale << 6 | (index < 0 ? 4u : (unsigned)index & 7) << 3 | rm);
        k->x = index < 0 ? 0 : (unsigned)index >> 3;
    }
    k->modrm = (uint8_t)(mod << 6 | (k->has_sib ? 4 : rm));
    set_disp(k, random_disp(k, mod == 1 ? 1 : 4), mod == 1 ? 1 : mod == 2 || base < 0 ? 4 : 0);
}

// [rip + disp32], in 32-bit code [disp32]
static void absolute_form(struct builder *k) {
    k->modrm = 5;
    set_disp(k, 0, 4);
}

static void random_memory(struct builder *k) {
    int base = (int)any_reg(k), index = (int)any_reg(k);
    if (index == 4 && !k->vsib)
        index = -1;
    if (k->p->fixed) {
        base = k->p->base[random_below(3)];
        index = random_chance(40) ? (int)k->p->index : -1;
    } else if (!k->vsib) {
        unsigned how = random_below(16);
        if (how == 0) {
            absolute_form(k);
            return;
        }
        if (how == 1)
            base = -1;
        if (how < 8 && base >= 0)
            index = -1;
    }
    if (k->p->fixed && !k->vsib && random_chance(8))
        base = index = -1;
    if (k->vsib)
        index = (int)any_reg(k);
    memory_form(k, base, index, random_below(4));
}

static void choose_operands(struct builder *k) {
    const struct insn_template *t = k->t;
    unsigned reg = any_reg(k);
    if (t->mem)
        random_memory(k);
    else if (t->byte)
        k->modrm = t->byte;
    else {
        unsigned rm = any_reg(k);
        k->modrm = (uint8_t)(0xc0 | (rm & 7));
        k->b_bit = rm >> 3;
    }
    if (t->byte)
        return;
    if (t->reg != 0xff)
        reg = (reg & 8) | t->reg;
    if (t->has_modrm) {
        k->modrm = (uint8_t)((k->modrm & ~0x38) | (reg & 7) << 3);
        k->r = reg >> 3;
    } else if (!t->vex) {
        k->b_bit = random_below(2);
    }
}

static void put_prefixes(struct builder *k) {
    static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2}, segments[] = {0x2e, 0x36, 0x3e, 0x26};
    const struct insn_template *t = k->t;
    if (t->mem && random_chance(k->p->fixed ? 1 : 20))
        put(k, t->vex ? 0x3e : 0xf0);
    if (random_chance(8))
        put(k, random_chance(75) ? 0x64 + random_below(2) : segments[random_below(4)]);
    if (k->is64 && random_chance(6))
        put(k, 0x67);
    if (!t->vex && t->pp)
        put(k, mandatory[t->pp]);
}

static void put_opcode(struct builder *k) {
    const struct insn_template *t = k->t;
    if (t->vex) {
        unsigned vvvv = random_chance(50) ? 0 : random_below(16);
        put(k, 0xc4);
        if (k->is64)
            put(k, (!k->r) << 7 | (!k->x) << 6 | (!k->b_bit) << 5 | t->map);
        else
            put(k, 0xe0u | t->map);
        put(k, (unsigned)t->w << 7 | (~vvvv & 15) << 3 | (unsigned)t->l << 2 | t->pp);
    } else {
        unsigned rex = (unsigned)t->w << 3 | k->r << 2 | k->x << 1 | k->b_bit;
        if (k->is64 && (rex || random_chance(20)))
            put(k, 0x40 | rex);
        if (t->map)
            put(k, 0x0f);
        if (t->map >= 2)
            put(k, t->map == 2 ? 0x38 : 0x3a);
    }
    put(k, t->opcode);
}

static void put_immediate(struct builder *k) {
    uint64_t v = random_value();
    memcpy(k->b + k->n, &v, 8);
    k->n += 8;
}

static bool is_gather(const struct insn_template *t) {
    return t->vex && t->map == 2 && t->pp == 1 && t->opcode >= 0x90 && t->opcode <= 0x93;
}

static bool patch(bool is64, struct decoded *d, unsigned at, unsigned bits, uint64_t v) {
    uint8_t b[15];
    memcpy(b, d->bytes, 15);
    memcpy(b + at, &v, bits / 8);
    return decode(is64, b, 15, d);
}

// Into itself a branch might loop for ever.
static bool into_itself(const ZydisDecodedOperand *o) {
    return o->imm.value.s < 0 && o->imm.value.s >= -15;
}

// Most branches go where there is code; those with 8 bits of displacement where it takes them.
static bool aim_branch(bool is64, uint64_t next, struct decoded *d, unsigned i) {
    if (d->z.raw.imm[0].size == 32 && random_chance(90) &&
        !patch(is64, d, d->z.raw.imm[0].offset, 32, code_address() - next))
        return false;
    return !into_itself(&d->op[i]);
}

// Absolute and RIP-relative operands, and relative branches, go where tests want them.
static bool aim(bool is64, uint64_t rip, struct decoded *d) {
    uint64_t next = rip + d->len;
    for (unsigned i = 0; i < d->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &d->op[i];
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative)
            return aim_branch(is64, next, d, i);
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || d->z.raw.disp.size < 32)
            continue;
        bool rel = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;
        if (rel || (o->mem.base == ZYDIS_REGISTER_NONE && o->mem.index == ZYDIS_REGISTER_NONE))
            return patch(is64, d, d->z.raw.disp.offset, d->z.raw.disp.size,
                         pick_address(o->size / 8u, true) - (rel ? next : 0));
    }
    return true;
}

bool build_insn(bool is64, enum insn_class c, uint64_t rip, const struct pointers *p, struct decoded *d) {
    struct builder k = {.is64 = is64, .t = templates_pick(is64, c), .p = p};
    if (!k.t)
        return false;
    k.vsib = is_gather(k.t);
    choose_operands(&k);
    put_prefixes(&k);
    put_opcode(&k);
    if (k.t->has_modrm) {
        put(&k, k.modrm);
        if (k.has_sib)
            put(&k, k.sib);
        memcpy(k.b + k.n, k.disp, 4);
        k.n += k.disp_len;
    }
    put_immediate(&k);
    memset(k.b + k.n, 0, sizeof(k.b) - k.n);
    return decode(is64, k.b, 15, d) && insn_classify(&d->z, d->op) == c && aim(is64, rip, d);
}
